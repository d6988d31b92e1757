"""Who may do what: one text, in Cedar, asked by every command before it changes anything.

`port` is what the rest sees: a request (who, which action, on what, in which context) and a verdict that names the
rules which made it. `cedar` is the adapter: the text is parsed once, checked against `schema.cedarschema`, and refused
whole where a rule could fail or has no name. `default.cedar` governs until a tenant stores a text of its own.

Everything fails closed. What no rule permits is denied. A permit that errs permits nothing; a forbid that errs denies,
unlike in Cedar itself, which skips it. A rule that asks is a forbid with `@ask("role, role")`: it wins over permits
however broad, and turns into "yes, once somebody with one of these roles agrees" where a permit stands behind it.
`demands` says what else it may ask of those who agree; where several rules ask, all of them have their say.

Cedar, and not a language that was easier to embed: its rules are checked against a schema before they are stored, it
says which rules decided, and it can be evaluated partially, which lists need. OPA in process was twenty times slower;
Casbin has neither a schema nor partial answers.
"""
