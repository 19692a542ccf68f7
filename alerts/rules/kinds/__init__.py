"""One file per kind of condition that a rule may name under ``when``: found here, listed nowhere.

A file ``<kind>.py`` holds the class ``When``, an `alerts.rules.condition.Condition`: the fields that people write, what
it must know, how it judges, what tells its alerts apart, and for which values it could never hold.
"""
