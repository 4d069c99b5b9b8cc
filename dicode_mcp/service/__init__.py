"""The use cases by noun: authorisation, audit, and the shapes every surface shows."""
