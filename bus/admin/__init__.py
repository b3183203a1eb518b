"""From a policy to topics, users and ACLs: plan, apply, drift."""
