"""Key providers: wrap and unwrap roots, once per epoch, never per message."""
