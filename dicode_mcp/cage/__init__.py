"""What a child does to itself before it runs a task: namespaces, files, limits, rights.

Payload: standard library only, nothing of ours imported, and as little as can be loaded, since
every run pays for it. The server describes a cage as a plan (plain dicts and lists, see
``dicode_mcp.executor.sandbox.plan``); here it is carried out, step by step, and a step that fails
ends the process before any code of the task has run.
"""
