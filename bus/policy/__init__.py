"""The law of a deployment: documents, the compiled policy, the decision (PDP) and metadata masking.

Reading a policy folder is the one I/O here (``loader``); everything after it is pure.
"""
