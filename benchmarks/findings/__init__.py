"""How well the checks tell sick training from healthy: tiny scripts whose faults are known, recorded and checked.

``sick/`` holds scripts with one fault each, which their docstrings name; ``healthy/`` holds their correct twins, and training
that looks odd and is well. All are written as a user would write them, from the fault and not from a check's rule.
"""
