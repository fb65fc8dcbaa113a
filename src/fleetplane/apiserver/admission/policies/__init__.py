"""Admission policies: CEL that refuses (ValidatingAdmissionPolicy) or changes (MutatingAdmissionPolicy) what is written.

``finding`` says which policies a request meets and loads no CEL; ``compiled`` has their expressions, ``judging`` and
``mutating`` evaluate them, ``checking`` says what is wrong with a policy when it is written.
"""
