"""Brings sealed segments into the store, each once, and lets their files go when the rows are durable there.

The schema comes first (`schema_keeper`), again where the store lost it; then an `inserter` for each signal takes one
segment after the other, as old as `pace` has them get. One that the store can't read goes through the `divider`. What
is stored is put together (`settle_keeper`), and its file goes (`reaper`). What does not go well is told in `health`.
`writer` is the whole.
"""
