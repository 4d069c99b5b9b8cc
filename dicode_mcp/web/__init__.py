"""HTTP: Starlette routes and the deadline protocol. Translates; decides nothing."""
