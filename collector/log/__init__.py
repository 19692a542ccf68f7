"""The write-ahead log: what was acknowledged is on disk, in files the engine reads as they are.

A request is *reserved* (`admission`) while it is on its way, *kept* once its frame is synced in its signal's open
segment (`committer`, `open_segments`), and only then acknowledged. A segment is *open*, then *sealed* and never cut
again: its id is the token by which the store knows a repeated insert. Sealed ones wait in the `backlog` until the store
has their rows, and are on disk until those are durable there. `write_ahead` is the whole.
"""
