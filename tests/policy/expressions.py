"""Random texts of rules about reading runs: sound for Cedar, with parts that err and parts that filter no list."""

from __future__ import annotations

from hypothesis import strategies as st

WORDS = [
    "ada",
    "bob",
    "loan",
    "lo%n",
    "a_c",
    "queued",
    "waiting",
    "running",
    "stalled",
    "x*y",
    "",
    "ünï",
    'q"q',
    "b\\s",
]
NUMBERS = st.integers(-4, 4)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


words = st.sampled_from(WORDS).map(quoted)
texts = st.sampled_from(["resource.status", "resource.created_by", "resource.thread_id"])
pieces = st.lists(st.sampled_from(["*", "l", "o", "a", "%", "_", "\\\\", "\\*", "n", "x"]), max_size=4)
patterns = pieces.map(lambda letters: f'"{"".join(letters)}"')

plain = st.one_of(
    st.builds("{} {} {}".format, texts, st.sampled_from(["==", "!="]), words),
    st.builds("{} {} {}".format, words, st.sampled_from(["==", "!="]), texts),
    st.builds("{} like {}".format, texts, patterns),
    st.builds("(resource has workflow && resource.workflow == {})".format, words),
    st.builds("(resource has workflow && resource.workflow like {})".format, patterns),
    st.builds("resource.priority {} {}".format, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), NUMBERS),
    st.builds("{} {} resource.priority".format, NUMBERS, st.sampled_from(["<", "<=", ">", ">="])),
    st.builds("[{}, {}].contains({})".format, words, words, texts),
    st.builds("resource {} Thread::{}".format, st.just("in"), words),
    st.builds("resource in [Thread::{}, Thread::{}]".format, words, words),
    st.builds("resource is Run in Thread::{}".format, words),
    st.builds('resource {} Run::"00000000-0000-0000-0000-00000000000{}"'.format, st.sampled_from(["==", "!=", "in"]),
              st.integers(0, 9)),
    st.sampled_from([
        "resource has workflow", "principal.makers.contains(resource.created_by)", "principal is Person",
        "resource.created_by == principal.actor", 'principal in Role::"viewer"', "principal.tenant == resource.tenant",
        'resource.tenant == "other"', "true", "false",
    ]),
)  # fmt: skip
erring = st.sampled_from([
    "resource.priority * 9223372036854775807 > 1",  # overflows for some priorities
    "9223372036854775807 + resource.priority != 0",
])  # fmt: skip
uncompiled = st.sampled_from(["resource.priority + 1 > 2", "resource.created_by == resource.thread_id"])


def conditions(leaves: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions over these leaves."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds("({} && {})".format, inner, inner),
            st.builds("({} || {})".format, inner, inner),
            st.builds("!({})".format, inner),
            st.builds("(if {} then {} else {})".format, inner, inner, inner),
        ),
        max_leaves=6,
    )


WHO = [
    "principal is Service",
    'principal in Role::"viewer"',
    'principal == Person::"ada"',
    'principal is Agent in Role::"x"',
]
WHICH = [
    'resource is Run in Thread::"ada"', 'resource == Run::"00000000-0000-0000-0000-000000000003"',
    'resource is Run in Run::"00000000-0000-0000-0000-000000000004"',
]  # fmt: skip


def rules(leaves: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """A text of one to five rules."""
    one = st.builds(
        "{} ({}, {}, {}) {} {{ {} }};".format,
        st.sampled_from(["permit", "permit", "forbid", '@ask("owner") forbid']),
        st.sampled_from(["principal", "principal", *WHO]),
        st.sampled_from(['action == Action::"read"', 'action in Action::"look"']),
        st.sampled_from(["resource is Run", "resource is Run", *WHICH]),
        st.sampled_from(["when", "when", "unless"]),
        conditions(leaves),
    )
    named = st.lists(one, min_size=1, max_size=5)
    return named.map(lambda found: "\n".join(f'@id("r{n}") {rule}' for n, rule in enumerate(found)))


exact_rules = rules(plain)
any_rules = rules(st.one_of(plain, plain, plain, erring, uncompiled))
