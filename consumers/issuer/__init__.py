"""The local issuer: one bundle per agent and epoch, until the authority service takes its place."""
