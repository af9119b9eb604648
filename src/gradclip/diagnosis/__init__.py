"""What is wrong with a run, why, and what to do: from a run file to findings.

:mod:`~gradclip.diagnosis.readings` reads a run file once, :mod:`~gradclip.diagnosis.signals` is what several findings look for
in it, :mod:`~gradclip.diagnosis.advice` what they advise, and :mod:`~gradclip.diagnosis.findings` holds one finding a file.

>>> from gradclip.diagnosis.registry import CHECKS
>>> CHECKS["clip-after-step"].family
'wiring'
"""
