"""Strict serialisation: what comes back, what is refused, what is never imported, and what is blanked."""

from __future__ import annotations

import dataclasses
import enum
import json
import pickle
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import ormsgpack
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables.utils import AddableDict
from langgraph.checkpoint.serde import jsonplus
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Command, Interrupt, Send
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field, RootModel, SecretStr, computed_field
from pydantic.alias_generators import to_camel

from control.core.problem import Refusal
from control.store.redaction import Redaction
from control.store.serde import StrictSerializer


@dataclasses.dataclass
class Inner:
    n: int


@dataclasses.dataclass
class Outer:
    inner: Any
    many: list[Any]


class Model(BaseModel):
    name: str
    inner: Inner | None = None


class Colour(enum.Enum):
    RED = "red"


class Word(enum.StrEnum):
    YES = "yes"


class Pair(NamedTuple):
    a: int
    b: int


class Shape(enum.Enum):
    SQUARE = (4, "square")


class Level(enum.IntEnum):
    LOW = 1


class Text(str):
    pass


class Number(int):
    pass


class Raw(bytes):
    pass


class Row(tuple):
    pass


class Table(dict):
    pass


@dataclasses.dataclass
class Halved:
    whole: int
    half: float = dataclasses.field(init=False, default=0)


@dataclasses.dataclass
class Seeded:
    whole: int
    seed: dataclasses.InitVar[int]


@dataclasses.dataclass(init=False)
class ByHand:
    whole: int

    def __init__(self, half: int) -> None:
        self.whole = 2 * half


@dataclasses.dataclass(init=False)
class ByHandToo:
    whole: int

    def __init__(self, whole: int, *, loudly: bool = False) -> None:
        self.whole = whole


class Roots(RootModel[list[Inner]]):
    pass


class Anything(RootModel[Any]):
    pass


class Holder(BaseModel):
    said: list[BaseMessage]
    known: list[AnyMessage]
    held: Any
    _seen: int = 0


class Rooted(RootModel[dict[str, int]]):
    pass


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    first_name: str = ""


class People(BaseModel):
    by_age: dict[int, list[Camel]] = {}
    either: int = Field(1, validation_alias=AliasChoices("either", "or"))


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    people: People | None = Field(None, alias="people!")


class Skewed(BaseModel):
    read: str = Field("", validation_alias="a", serialization_alias="b")


class Deep(BaseModel):
    read: str = Field("", validation_alias=AliasPath("a", 0))


class Silent(BaseModel):
    said: str = ""
    secret: str = Field("", exclude=True)


class Listening(BaseModel):
    to: tuple[Silent | None, ...] = ()


class Area(BaseModel):
    model_config = ConfigDict(extra="forbid")
    side: int

    @computed_field
    def size(self) -> int:
        return self.side**2


class Halves(BaseModel):
    of: Halved


OURS = [
    (__name__, kind.__name__)
    for kind in (
        Inner, Outer, Model, Colour, Word, Pair, Shape, Level, Halved, Seeded, ByHand, ByHandToo, Roots, Rooted, Camel,
        People, ByName, Skewed, Deep, Silent, Listening, Area, Halves, Holder,
    )
]  # fmt: skip


def there_and_back(serde: StrictSerializer, value: Any) -> Any:
    return serde.loads_typed(serde.dumps_typed(value))


@pytest.mark.parametrize(
    "value",
    [
        None, b"\0\xff", bytearray(b"x"), True, 2**63, -1.5, "é\0", [1, [2]], {"a": {1: "b"}}, {1, 2}, frozenset({3}),
        datetime(2026, 1, 2, tzinfo=UTC), timedelta(days=1, microseconds=2), Decimal("1.10"), UUID(int=7), Path("/a/b"),
        HumanMessage("hi", id="1"), AIMessage("", tool_calls=[{"name": "t", "args": {"a": 1}, "id": "c"}]),
        Send("node", {"a": [1]}), Interrupt(value={"q": 1}, id="i"), Command(update={"a": 1}, goto="b"),
        Outer(Inner(1), [Inner(2), {"deep": Model(name="x", inner=Inner(3))}]), Colour.RED, Word.YES, Shape.SQUARE,
        Level.LOW, Pair(1, (2, 3)), (), (1, ("a", [(2,)])), {(1, ("a", None)): {2: b"x", 1.5: True}},
        frozenset({(1, 2)}), OrderedDict(b=1, a=(2,)), Counter("aab"), deque([(1,), 2], maxlen=3), -0.0,
        Send("node", (1, [2])), float("inf"), re.compile("a+", re.I), _DeltaSnapshot([(1,)]), IPv4Address("1.2.3.4"),
        time(1, 2), date.max, ByHandToo(1), Roots([Inner(1)]), Roots([]), Rooted({}), Rooted({"root": 1}),
        Camel(firstName="x"), People.model_validate({"by_age": {1: [{"firstName": "x"}]}, "or": 2}),
        ByName(people=People(either=3)),
    ],
    ids=repr,
)  # fmt: skip
def test_an_allowed_value_comes_back_as_it_was(value: Any) -> None:
    """Alone, and within what packs its own contents."""
    for given in (value, {"deep": [value]}, (value,), Outer(value, [value]), Send("n", {"arg": value})):
        back = there_and_back(StrictSerializer(OURS), given)
        if isinstance(value, bytearray) and given is not value:
            assert isinstance(back, type(given)), "the packer takes it for bytes without asking"
            continue
        assert back == given
        assert shape(back) == shape(given)


def shape(value: Any) -> Any:
    """The types of a value and of all it holds; what prints alike, such as -0.0 and 0.0, is told apart."""
    match value:
        case dict():
            return type(value), [(shape(key), shape(item)) for key, item in value.items()]
        case list() | tuple() | deque():
            return type(value), getattr(value, "maxlen", None), [shape(item) for item in value]
        case set() | frozenset():
            return type(value), sorted(map(repr, value))
        case Outer() | Send():
            return type(value), [
                shape(getattr(value, name)) for name in ("inner", "many", "arg") if hasattr(value, name)
            ]
    return type(value), repr(value)


def test_what_is_only_plain_data_is_packed_as_langgraph_packs_it() -> None:
    """Byte for byte, so that leaving leaves plain LangGraph data behind."""
    message = AIMessage("", id="1", tool_calls=[{"name": "t", "args": {"a": [1]}, "id": "c"}])
    for value in (
        {"a": [1, "é", None, {2: 1.5}]}, [message, HumanMessage("hi", id="2")], Send("n", {"a": 1}), Word.YES, {1, 2},
        Interrupt(value={"q": 1}, id="i"), Command(update={"a": 1}, goto="b"), Outer(Inner(1), []), Model(name="x"),
        [datetime(2026, 1, 2, tzinfo=UTC), Decimal("1.10"), UUID(int=7), Path("/a"), timedelta(1), re.compile("a")],
        SecretStr("s"), [frozenset({3}), _DeltaSnapshot([1]), Pair(1, 2), time(1), ZoneInfo("UTC")],
    ):  # fmt: skip
        allowed = [*OURS, ("pydantic.types", "SecretStr")]
        assert StrictSerializer(allowed).dumps_typed(value) == jsonplus.JsonPlusSerializer().dumps_typed(value)


def test_stock_langgraph_reads_a_tuple_too() -> None:
    packed = StrictSerializer().dumps_typed([(1, (2,)), OrderedDict(a=1)])
    assert jsonplus.JsonPlusSerializer(allowed_msgpack_modules=True).loads_typed(packed) == [(1, (2,)), {"a": 1}]
    assert jsonplus.JsonPlusSerializer(allowed_msgpack_modules=None).loads_typed(packed) == [[1, [2]], {"a": 1}]


def test_what_langchain_means_as_a_text_or_a_dict_is_one() -> None:
    back = there_and_back(StrictSerializer(), {"said": AIMessage("hi").text, "added": AddableDict(a=1), "who": (1,)})
    assert shape(back) == shape({"said": "hi", "added": {"a": 1}, "who": (1,)})


def test_what_changes_before_it_is_packed_is_known() -> None:
    """The README says so of each. pydantic makes plain data of a field whose type it does not know."""
    paris = datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Paris"))
    artifact = ToolMessage("x", tool_call_id="1", artifact=[Document("p"), (1, 2)])
    back = there_and_back(StrictSerializer(), [bytearray(b"x"), paris, artifact])
    assert type(back[0]) is bytes
    assert back[1] == paris and back[1].utcoffset() == paris.utcoffset() and type(back[1].tzinfo) is timezone
    assert back[2].artifact[0]["page_content"] == "p" and back[2].artifact[1] == (1, 2)


def test_what_a_models_dump_leaves_out_is_known() -> None:
    """The README says so of each. To see it would take a look at each value."""
    holder = Holder(said=[AIMessage("hi", id="1")], known=[AIMessage("hi", id="1")], held=Inner(1))
    holder._seen = 3
    back = there_and_back(StrictSerializer(OURS), holder)
    assert type(back.said[0]) is BaseMessage and back.known == holder.known
    assert back.held == {"n": 1} and back._seen == 0


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (Text("x"), rf"{__name__}.Text would come back as str"),
        (Number(3), rf"{__name__}.Number would come back as int"),
        (Raw(b"x"), rf"{__name__}.Raw would come back as bytes"),
        (Row((1,)), rf"{__name__}.Row would come back as tuple"),
        (Table(a=1), rf"{__name__}.Table would come back as dict"),
        (defaultdict(list), "collections.defaultdict would come back as dict"),
        (ValueError("x"), "ValueError would come back as a text"),
        (Halved(3), rf"{__name__}.Halved has fields that its constructor does not take, and would come back as dict"),
        (Seeded(1, 2), rf"{__name__}.Seeded is made from more than its fields, and would come back as dict"),
        (ByHand(3), rf"{__name__}.ByHand has fields that its constructor does not take, and would come back as dict"),
        (Skewed(a="x"), rf"{__name__}.Skewed would come back without Skewed.read, whose alias its dump does not know"),
        (Deep(a=["x"]), rf"{__name__}.Deep would come back without Deep.read, whose alias its dump does not know"),
        (Silent(), rf"{__name__}.Silent would come back without Silent.secret, which is excluded from its dump"),
        (Listening(), rf"{__name__}.Listening would come back without Silent.secret, which is excluded from its dump"),
        (Area(side=2), rf"{__name__}.Area would be given Area.size, which it computes"),
        (Halves(of=Halved(1)), rf"{__name__}.Halves would lose fields of Halved that its constructor does not take"),
        (AddableDict({Text("x"): 1}), rf"a dictionary's key of type {__name__}.Text would change"),
        ({Text("x"): 1}, rf"a dictionary's key of type {__name__}.Text would change"),
        ({Word.YES: 1}, rf"a dictionary's key of type {__name__}.Word would change"),
        ({(1, Level.LOW): 1}, rf"a dictionary's key of type {__name__}.Level would change"),
        ({date.min: 1}, "a dictionary's key of type datetime.date would change"),
        ({UUID(int=1): 1}, "a dictionary's key of type uuid.UUID would change"),
    ],
    ids=repr,
)
def test_what_would_come_back_as_another_type_is_refused_with_its_place(value: Any, why: str) -> None:
    serde = StrictSerializer(OURS)
    for given, place in (
        (value, ""),
        ({"a": 1, "orders": [0, value]}, "['orders'][1]"),
        ({3: [value]}, "[3][0]"),
        ({"t": (0, value)}, "['t'][1]"),
        (Outer(0, [{"k": value}]), ".many[0]['k']"),
        (Send("n", [value]), ".arg[0]"),
    ):
        with pytest.raises(Refusal) as refusal:
            serde.dumps_typed(given, channel="basket")
        assert refusal.value.code == "type-not-allowed"
        assert refusal.value.why == f"{why} (channel 'basket'{f', at {place}' if place else ''})."
        assert (refusal.value.facts["channel"], refusal.value.facts["place"]) == ("basket", place)


@pytest.mark.parametrize("value", ["\ud800", {"\ud800": 1}, 2**64, range(3), {frozenset(): 1}], ids=ascii)
def test_what_the_format_has_no_words_for_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(Refusal, match=r"at \['log'\]\[1\]") as refusal:
        StrictSerializer().dumps_typed({"log": ["fine", value]})
    assert refusal.value.code == "state-not-serialisable"


def test_a_model_of_a_list_is_refused_with_the_place_within() -> None:
    with pytest.raises(Refusal, match=r"object: .* \(at \['all'\]\[1\]\)"):
        StrictSerializer([(__name__, "Anything")]).dumps_typed({"all": Anything([1, object()])})


def test_arrays_that_numpy_alone_could_read_are_refused() -> None:
    numpy = pytest.importorskip("numpy")
    serde = StrictSerializer()
    assert (there_and_back(serde, [numpy.arange(4.0)])[0] == numpy.arange(4.0)).all()
    with pytest.raises(Refusal, match=r"ndarray holds objects, .* \(at \[0\]\)") as refusal:
        serde.dumps_typed([numpy.array([{}, None])])
    assert refusal.value.code == "type-not-allowed"
    with pytest.raises(Refusal, match="ndarray has named fields"):
        serde.dumps_typed(numpy.zeros(2, dtype=[("a", "i4"), ("b", "f8")]))


def test_a_class_that_is_allowed_later_is_packed_then() -> None:
    serde = StrictSerializer()
    with pytest.raises(Refusal):
        serde.dumps_typed(Inner(1))
    serde.allow(OURS)
    assert there_and_back(serde, Inner(1)) == Inner(1)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Inner(1), "Inner"),
        ([{"deep": (Inner(1),)}], "Inner"),
        (Outer(Inner(1), []), "Inner"),
        (Model(name="x"), "Model"),
        ({"model": [Model(name="x")]}, "Model"),
        (Outer({1: Colour.RED}, []), "Colour"),
        (Pair(1, 2), "Pair"),
        (Send("n", Inner(1)), "Inner"),
        (Interrupt(value=[Inner(1)], id="i"), "Inner"),
        (_DeltaSnapshot([Inner(1)]), "Inner"),
    ],
    ids=repr,
)
def test_a_type_that_would_come_back_as_something_else_is_refused_by_name(value: Any, named: str) -> None:
    allowed = [(__name__, "Outer")]
    with pytest.raises(Refusal, match=rf"{__name__}\.{named} is not among the types") as refusal:
        StrictSerializer(allowed).dumps_typed(value)
    assert refusal.value.problem.code == "type-not-allowed"
    assert refusal.value.facts["type"] == f"{__name__}.{named}"


def test_a_class_that_nobody_could_find_again_is_refused_though_allowed() -> None:
    @dataclasses.dataclass
    class Local:
        n: int

    with pytest.raises(Refusal, match="Local is not among"):
        StrictSerializer([(__name__, "Local")]).dumps_typed([Local(1)])


@pytest.mark.parametrize("value", [lambda: 1, [object()], {"a": {"b": open}}, sys, iter([1])], ids=lambda _: "")
def test_what_cannot_be_stored_is_refused(value: Any) -> None:
    with pytest.raises(Refusal) as refusal:
        StrictSerializer(OURS).dumps_typed(value)
    assert refusal.value.problem.code == "state-not-serialisable"


def test_what_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(Refusal) as refusal:
        StrictSerializer().dumps_typed(endless)
    assert refusal.value.problem.code == "state-not-serialisable"


@pytest.mark.parametrize("code", range(6))
def test_a_class_that_the_databases_bytes_name_is_not_imported(code: int, tmp_path: Path, monkeypatch: Any) -> None:
    """A module that leaves a mark when it is imported, named as the type of a value."""
    module = f"planted_{code}"
    (tmp_path / f"{module}.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'mark')!r}).touch()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    payload = ormsgpack.packb([module, "Thing", {"a": 1}, "method"])
    call = ormsgpack.packb(["os", "system", f"touch {tmp_path / 'mark'}"])
    extensions = [ormsgpack.Ext(code, payload), ormsgpack.Ext(jsonplus.EXT_CONSTRUCTOR_SINGLE_ARG, call)]
    planted = ormsgpack.packb({"x": extensions})
    back = StrictSerializer(OURS).loads_typed(("msgpack", planted))
    assert not (tmp_path / "mark").exists()
    assert module not in sys.modules
    assert isinstance(back, dict)


def test_bytes_of_a_pickle_are_refused() -> None:
    with pytest.raises(Exception, match=r"pickle|Unknown|not"):
        StrictSerializer().loads_typed(("pickle", pickle.dumps(Inner(1))))


KEY = 'sk-Ab"c\\é-secret'
CARD = r"\b\d{16}\b"


@pytest.fixture
def serde() -> StrictSerializer:
    return StrictSerializer(OURS, secrets=[KEY, "abc"], patterns=[CARD, r"^tok_\w+$"])


def test_secrets_are_blanked_wherever_a_value_holds_them(serde: StrictSerializer) -> None:
    value = Outer(
        {"key": KEY, KEY: 1, "card": "pay 1234567890123456!", "more": "12345678901234567", "no": 1234567890123456},
        [HumanMessage(f"use {KEY}", id="m"), Model(name="tok_x"), "not tok_x", b"raw " + KEY.encode(), Inner(3)],
    )
    blank = "*" * len(KEY)
    assert there_and_back(serde, value) == Outer(
        {"key": blank, blank: 1, "card": "pay ****************!", "more": "12345678901234567", "no": 1234567890123456},
        [
            HumanMessage(f"use {blank}", id="m"), Model(name="*****"), "not tok_x", b"raw " + b"*" * len(KEY.encode()),
            Inner(3),
        ],
    )  # fmt: skip


def test_secrets_are_blanked_in_what_is_built_again(serde: StrictSerializer) -> None:
    blank = "*" * len(KEY)
    given = (KEY, OrderedDict([(KEY, (1, KEY))]), Counter([KEY]), Roots([]), [(("deep", KEY),)])
    kept = (blank, OrderedDict([(blank, (1, blank))]), Counter([blank]), Roots([]), [(("deep", blank),)])
    back = there_and_back(serde, given)
    assert back == kept
    assert shape(back) == shape(kept)


def test_what_langgraph_finds_things_by_is_no_secret() -> None:
    serde = StrictSerializer(secrets=["interrupt-1", "the-node"], patterns=[r"[0-9a-f]{32}"])
    assert there_and_back(serde, Send("the-node", "the-node")) == Send("the-node", "********")
    kept = Interrupt(value="0" * 32, id="0" * 32)
    assert there_and_back(serde, [kept]) == [Interrupt(value="*" * 32, id="0" * 32)]


def test_a_secret_that_is_a_types_name_changes_no_type() -> None:
    serde = StrictSerializer(secrets=["decimal", "datetime"])
    value = [Decimal("1.5"), datetime(2026, 1, 1, tzinfo=UTC), "decimal"]
    assert there_and_back(serde, value) == [*value[:2], "*******"]


def test_bytes_alone_are_blanked_too(serde: StrictSerializer) -> None:
    assert serde.loads_typed(serde.dumps_typed(f"a {KEY}".encode())) == b"a " + b"*" * len(KEY.encode())


def test_json_is_blanked_by_what_it_says_not_by_how_it_is_written(serde: StrictSerializer) -> None:
    text = json.dumps({"b": f"x{KEY}", "a": ["1234567890123456", 1234567890123456]})
    assert KEY not in text, "JSON escapes it, so that a search of the text would miss it"
    assert json.loads(serde.redact_json(text)) == {
        "b": "x" + "*" * len(KEY), "a": ["*" * 16, 1234567890123456]
    }  # fmt: skip
    untouched = '{"b":  1}'
    assert serde.redact_json(untouched) is untouched


def test_without_secrets_nothing_is_searched_and_nothing_changes() -> None:
    assert not Redaction(["short"], [])
    assert Redaction().data(b"abc") == b"abc"
    assert Redaction(["secret-1"]).text("a secret-1 b") == "a ******** b"


def test_the_longest_secret_is_blanked_first() -> None:
    assert Redaction(["secret", "secret-more"]).text("secret-more secret") == "*********** ******"
