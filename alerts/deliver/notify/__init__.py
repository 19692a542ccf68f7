"""One file per way to tell somebody: found here, listed nowhere.

A file ``<name>.py`` holds the class ``Settings``, an `alerts.deliver.notifier.NotifierSettings`: the fields of the
section ``alerts.<name>`` of the configuration, and how the notifier is made of it.
"""
