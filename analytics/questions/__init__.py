"""The questions that Servescope answers: a file each, found by its name.

A file has ``ask(store, selection, *, …own options)``, which gives an `analytics.answer.Answer`, and the first line
of its docstring says what is asked. Statements stand beside it in a ``.sql`` file of the same name. A question that
people ask from the command line declares an `analytics.question.Command` as ``COMMAND``. Questions share modules of
`analytics` and never import each other.
"""
