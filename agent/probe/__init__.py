"""What a ``servescope-probe`` in a model server tells: datagrams, steps, requests at the server's own door."""
