"""How well the checks tell sick training from healthy: tiny scripts whose faults are known, recorded and checked.

``sick/`` holds scripts with one fault each, which their docstrings name; ``healthy/`` holds their correct twins, and training
that looks odd and is well. All are written as a user would write them, from the fault and not from a check's rule.

Rules were changed after looking at how they did on these. ``unseen/`` therefore holds a second part of the same form, written
after the rules by someone who did not know them, and run once; no script of it is edited for its result. When a rule is changed
after looking at it, it is unseen no more, and docs/findings.md has to say so.
"""
