"""The rules, as arithmetic on frozen values: no clock, no database, no randomness, nothing to await.

The one idea: status is derived, never declared. Each fact has one owner (`facts`), and a run's status is a total
function of its facts (`run_status`); what may be done next is a table over status and verb (`lifecycle`); what happened
is a chain of entries (`ledger`) from which the same facts can be worked out again (`audit`). Time arrives as an
argument.
"""
