"""The policy: a folder of YAML in, decisions out.

`folder` reads the files, `load` makes a `Policy` of their bytes or says everything that is wrong with them, `decide`
answers questions, `explain` answers them with the trace kept. The language is taught in `policies/README.md`.
"""
