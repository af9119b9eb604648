"""One finding a file: its name is the finding's name, its folder the family, its docstring the manual page.

``detect(run, optimizer)`` yields a :class:`~gradclip.diagnosis.finding.Symptom` for what it finds; a new file is all that a new
finding needs.
"""
