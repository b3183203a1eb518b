"""`bus demo`: the main job on the local stack with the messages of real agents; every printed figure is computed."""
