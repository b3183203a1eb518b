"""The rotator: replaces agents' broker passwords."""
