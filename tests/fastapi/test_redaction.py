"""What the redactor hides: values by their names, however they are written in texts, and in changed data."""

from __future__ import annotations

import base64
import html
import json
import unicodedata
from subprocess import CalledProcessError
from typing import Any
from urllib.parse import quote

import pytest
import redis as redis_sync
from fastapi.testclient import TestClient
from pydantic import BaseModel

from rapids import BaseEvent
from rapids.redaction import MASK, HiddenValues, Redactor
from tests.fastapi.helpers import STREAM, letter_fields, put_letter

LETTERS = "/rapids/api/dead-letters"
EVENT = ("event_type", "schema_version", "data", "id", "timestamp", "correlation_id", "causation_id", "metadata")
SECRET = "pa\\ss'w\"o\nrdé99"
CARD = "4111111111111111"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.THsR8Uxyzabc"
HIDDEN = HiddenValues([SECRET, CARD, TOKEN, "!$%&"])
REDACTOR = Redactor.of(["iban"])


class FaSecretive(BaseEvent):
    n: int = 0
    password: str = ""
    headers: list[list[str]] = []
    header: dict[str, Any] = {}


class FaStrict(BaseEvent):
    model_config = {"extra": "forbid"}
    password: str = ""
    passes: dict[str, int] = {}


def grouped(number: str, separator: str) -> str:
    return separator.join(number[at : at + 4] for at in range(0, len(number), 4))


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        repr(SECRET),
        repr(KeyError(SECRET)),
        repr(repr(SECRET)),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        repr(json.dumps(SECRET)),
        repr(SECRET.encode()),
        quote(SECRET),
        quote(quote(SECRET)),
        base64.b64encode(f"{SECRET}".encode()).decode(),
        base64.urlsafe_b64encode(f"a:{SECRET}".encode()).decode()[3:-4],
        SECRET.encode().hex(),
        SECRET.upper(),
        SECRET.replace("\n", "\n  | "),
        grouped(CARD, " "),
        grouped(CARD, "-"),
        grouped(CARD, "\n    | "),
        TOKEN[:25] + "..." + TOKEN[-24:],
        TOKEN[10:],
        TOKEN[:10],
        unicodedata.normalize("NFD", SECRET),
        html.escape(SECRET),
        html.escape(html.escape(html.escape(SECRET))),
        "".join(chr(ord(digit) + 0xFEE0) for digit in CARD),
        "!$%&",
        quote("!$%&"),
        html.escape("!$%&"),
    ],
)
def test_a_hidden_value_is_found_however_it_is_written(written: str) -> None:
    shown = HIDDEN.text(f"it is {written}")
    assert shown.startswith(f"it is {MASK[:0]}")
    left = shown.replace(MASK, "").removeprefix("it is ")
    assert not any(map(str.isalnum, left.replace("KeyError", "").replace("b", "").replace("n", ""))), shown
    assert "!$" not in left


@pytest.mark.parametrize("at", range(3, len(CARD)))
def test_a_value_that_is_cut_at_either_end_is_found(at: int) -> None:
    assert HIDDEN.text(f"ends with {CARD[:at]}") == f"ends with {MASK}"
    assert HIDDEN.text(f"{CARD[-at:]} begins") == f"{MASK} begins"
    assert HIDDEN.text(f"a {CARD[:at]}... b") == f"a {MASK}... b"


def test_a_value_too_short_to_be_found_hides_the_whole_text() -> None:
    assert HiddenValues(["7"]).text("pin 7 is wrong") == MASK
    assert HiddenValues(["7"]).text("the pin is wrong") == "the pin is wrong"
    assert HiddenValues(None).text("anything") == MASK


@pytest.mark.parametrize(
    "name",
    [
        *("newPassword", "db_password", "secret_access_key", "cvv2", "otp", "jwt", "api-token", "APIKey", "apikey"),
        *("X-API-Key", "userPasswordOld", "dbpasswd", "usertoken", "tokens", "cookies", "sessionId", "IBAN", "my_iban"),
        *("apikeys", "myApikey", "stripeapikey", "pincode", "otpcode", "creds", "root_pw", "Kennwort", "motDePasse"),
        *("contraseña", "smsCode", "2fa_code", "seed_phrase", "cardNo", "cc_num", "ssh-key", "user[password]"),
        *("password1", "card number", "cardNumber", "\uff30\uff21\uff33\uff33\uff37\uff2f\uff32\uff24", "set-cookie"),
    ],
)
def test_names_are_hidden_by_their_words(name: str) -> None:
    assert REDACTOR.hides(name)


@pytest.mark.parametrize(
    "name",
    [
        "secretary",
        "shipping",
        "opinion",
        "compass",
        "power",
        "sacred",
        "key",
        "token_type",
        "password_changed_at",
        "number",
        "",
        "_",
    ],
)
def test_other_names_are_not_hidden(name: str) -> None:
    assert not REDACTOR.hides(name)


@pytest.mark.parametrize(
    "data",
    [
        {"url": "postgresql://app:s3cretvalue@db/x"},
        {"headers": [["authorization", "s3cretvalue"], ["a", "b"]]},
        {"headers": ["host", "a", "authorization", "s3cretvalue"]},
        {"headers": [{"name": "X-Api-Key", "value": "s3cretvalue"}]},
        {"field": "password", "old_value": "x", "newValue": "s3cretvalue"},
        {"field_name": "pin", "before": 1, "after": "s3cretvalue"},
        {"op": "replace", "path": "/user/password", "value": "s3cretvalue"},
        {"type": "string_type", "loc": ["body", "password"], "msg": "no", "input": {"x": "s3cretvalue"}},
        {"body": '{"password": "s3cretvalue"}'},
        {"form": "a=b&password=s3cretvalue&c=d"},
        {"text": "Authorization: Bearer s3cretvalue"},
        {"x": "x=password=s3cretvalue"},
        {"token": {"s3cretvalue": True}},
        {"password": "s3cretvalue", "note": "it is s3cretvalue"},
    ],
)
def test_values_without_a_field_of_their_own_are_hidden(client: TestClient, redis_url: str, data: Any) -> None:
    put = put_letter(redis_url, data=json.dumps(data), error="no S3CRETVALUE", traceback="at 's3cretvalue'")
    for path in ("", f"/{put}", "/export", "?q=s3cret"):
        answer = client.get(LETTERS + path)
        assert answer.status_code == 200
        assert "s3cretvalue" not in answer.text.lower()


ODD = [
    b'{"amount": NaN, "credentials": {"value": "S1secret"}, "secret": ["S2secret"]}',
    b'{"a": ' * 150 + b'{"secret": "S1secret"}' + b"}" * 150,
    b'{"passw\\u006frd": "S1secret"}',
    b'{"password": "S1secret", "n": 1',
    b'{"password": "S1secret", "password": "S2secret"}',
    b'{"n": 1} {"password": "S1secret"}',
    b"\xff password=S1secret",
    b'["password", "S1secret"',
]


@pytest.mark.parametrize("data", ODD)
def test_what_a_worker_reads_is_hidden_and_other_data_are_withheld(
    client: TestClient, redis_url: str, data: bytes
) -> None:
    read = [secret for secret in ("S1secret", "S2secret") if secret.encode() in data][-2 if b"NaN" in data else -1 :]
    put = put_letter(redis_url, data=data, metadata=data, error=str(read), traceback=f"it is {read[-1]}")
    paths = ("", f"/{put}", "/export", "?q=S1secret", "?q=S2secret")
    for answer in (
        *(client.get(LETTERS + path) for path in paths),
        client.get("/rapids/api/events?correlation_id=corr-1"),
    ):
        assert answer.status_code == 200
        assert "S1secret" not in answer.text
        assert "S2secret" not in answer.text


@pytest.mark.parametrize("guess", ["hunter2", "other"])
def test_an_edit_does_not_tell_whether_a_guess_is_right(client: TestClient, redis_url: str, guess: str) -> None:
    stored = {"n": 1, "password": "hunter2", "headers": [["authorization", "hunter2"]]}
    shown: list[Any] = []
    for body in (
        {"patch": {"password": guess}},
        {"data": {**stored, "password": guess}},
        {"patch": {"headers": [["authorization", guess]]}},
    ):
        put = put_letter(redis_url, event_type="fa.secretive", data=json.dumps(stored))
        answer = client.post(f"{LETTERS}/{put}/replay", json=body)
        assert answer.status_code == 200, answer.text
        [change] = client.get(f"{LETTERS}/{put}").json()["history"]
        shown += [
            [(one["pointer"], one["op"], one["before"]) for one in diff]
            for diff in (answer.json()["diff"], change["diff"])
        ]
        assert "hunter2" not in answer.text
    password, header = ("/password", "replace", MASK), ("/headers/0/1", "replace", MASK)
    assert shown[0] == [password]
    assert shown[4] == [header]
    for one in (*shown[1:4], shown[5]):
        assert sorted(one) == sorted([password, header])


def test_a_hidden_value_is_masked_in_other_places_of_a_diff(client: TestClient, redis_url: str) -> None:
    put = put_letter(
        redis_url, event_type="fa.secretive", data=json.dumps({"password": "hunter2", "headers": [["a", "HUNTER2"]]})
    )
    answer = client.post(f"{LETTERS}/{put}/replay", json={"patch": {"headers": [["a", "b"]]}})
    assert answer.json()["diff"][0]["before"] == MASK
    assert "hunter2" not in client.get(f"{LETTERS}/{put}").text.lower().replace('"headers":[["a","hunter2"]]', "")


@pytest.mark.parametrize(("count", "shown"), [(20, "plain words"), (21, MASK)])
def test_no_text_about_more_hidden_letters_than_can_be_searched_is_shown(count: int, shown: str) -> None:
    """To search a text for more takes tenths of a second, in the admin and for each line of the log."""
    assert HiddenValues(f"{n:02}" + "z" * 998 for n in range(count)).text("plain words") == shown


def test_a_diff_does_not_tell_whether_a_part_of_a_hidden_value_is_right(client: TestClient, redis_url: str) -> None:
    secret = "sk9fQ2mZ7pLw3xTn8VbYc4Kd6"
    put = put_letter(redis_url, event_type="fa.secretive", data=json.dumps({"password": secret}))
    guesses = [secret[:3], secret[:7], secret[-3:], secret[-7:], f"{secret[:5]}...", f"…{secret[-5:]}"]
    answer = client.post(f"{LETTERS}/{put}/replay", json={"patch": {"headers": [guesses]}})
    [change] = client.get(f"{LETTERS}/{put}").json()["history"]
    for diff in (answer.json()["diff"], change["diff"]):
        assert diff[0]["after"] == [guesses]


@pytest.mark.parametrize(
    "sign",
    [
        *("a=", "a:", "://", "eyJ-", "\\", "%41", "...", "bearer ", "input_value=", "password=", "password:", "\\x41"),
        *("password='", "password=[", "pin=a(", "<pin>", "<a ", "&quot;pin&quot;:", "pin%5D=", "('pin','x", "://a:"),
        *("a:b@://", "--pin ", "-----BEGIN PRIVATE KEY-----", "cookie: a=", "authorization: a ", "pin=\\'", "pin=(('"),
    ],
)
def test_hostile_texts_are_searched_in_linear_time(sign: str) -> None:
    hidden = HiddenValues([f"secret-{n}-" + "z" * 900 for n in range(50)])
    REDACTOR.text(sign * (100_000 // len(sign)), hidden, 100_000)


SIX = ["1", "2", "3", "4", "5", "6"]


@pytest.mark.parametrize(
    ("stored", "changed"),
    [
        ({"n": 1, "password": "{}"}, {"password": "{}", "n": 2}),
        ({"n": 1, "headers": [["h", "1"], ["authorization", "{}"]]}, {"n": 2, "headers": [["authorization", "{}"]]}),
        ({"headers": [["authorization", "{}"]]}, {"headers": [["authorization", "{}"], ["authorization", "{}"]]}),
        (
            {"headers": [["token", "{}"], *([one] for one in SIX)]},
            {"headers": [["token", "{}"], *([one] for one in SIX[1:])]},
        ),
        (
            {"headers": [["token", "{}"], *([f"a{n}"] for n in range(100))]},
            {"headers": [["token", "{}"], *([f"b{n}"] for n in range(100))]},
        ),
        ({"headers": [["password", "{}"], ["note", "it is {}"]]}, {"headers": [["password", "{}"], ["note", "other"]]}),
    ],
)
@pytest.mark.parametrize("how", ["data", "patch"])
def test_no_part_of_a_diff_depends_on_a_hidden_value(
    client: TestClient, redis_url: str, stored: Any, changed: Any, how: str
) -> None:
    answers: list[str] = []
    for guess in ("hunter2", "swordfish"):
        put = put_letter(redis_url, event_type="fa.secretive", data=json.dumps(stored).replace("{}", "hunter2"))
        body = json.loads(json.dumps({how: changed}).replace("{}", guess))
        answer = client.post(f"{LETTERS}/{put}/replay", json=body)
        [change] = client.get(f"{LETTERS}/{put}").json()["history"]
        answers.append(json.dumps([answer.json()["diff"], change["diff"], change["data"]["value"]]))
        assert MASK in answers[-1]
        assert "hunter2" not in answers[-1]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("patch", [{"header": {"name": "x"}}, {"header": {"name": None}}, {"header": {"name": 1}}])
def test_a_patch_that_would_show_a_hidden_value_is_refused(client: TestClient, redis_url: str, patch: Any) -> None:
    stored = {"header": {"name": "authorization", "value": "hunter2"}}
    put = put_letter(redis_url, event_type="fa.secretive", data=json.dumps(stored))
    answer = client.post(f"{LETTERS}/{put}/replay", json={"patch": patch})
    assert answer.status_code == 422
    assert [(one["pointer"], one["type"]) for one in answer.json()["errors"]] == [("/header/value", "hidden_value")]
    assert client.get(f"{LETTERS}/{put}").json()["state"] == "dead"
    for more in ({"value": None}, {"value": "other"}):
        put = put_letter(redis_url, event_type="fa.secretive", data=json.dumps(stored))
        changed = {"header": patch["header"] | more}
        assert client.post(f"{LETTERS}/{put}/replay", json={"patch": changed}).status_code == 200
        assert "hunter2" not in client.get(f"{LETTERS}/{put}").text


QUOTING = "a\"b'c s3cret"
WRITTEN = [
    json.dumps({"password": "correct horse, s3cret}"}),
    json.dumps(json.dumps({"password": "correct horse s3cret"})),
    json.dumps({"credentials": {"value": "s3cret"}}),
    json.dumps({"secret": ["x", "s3cret"]}),
    json.dumps([["authorization", "s3cret"]]),
    f"got {json.dumps({'password': 'correct horse s3cret'})}",
    f"got {json.dumps({'credentials': {'v': 's3cret'}})} here",
    f"got {json.dumps(json.dumps({'password': 'correct horse s3cret'}))}",
    f"got {html.escape(json.dumps({'password': 'correct horse s3cret'}))}",
    f"got {quote(json.dumps({'password': 'correct horse s3cret'}))}",
    "Credentials(user='a', password='correct horse s3cret')",
    "Credentials(user='a', password=\"it's s3cret\")",
    "{'password': b's3cret'} {b'pin': b's3cret'}",
    "{'passwords': ['x y', 's3cret']}",
    "{'credentials': {'v': 's3cr",
    "password='correct hor s3cr",
    "Login(secret=Secret(value='x s3cret'), n=1)",
    "[(b'x-api-key', b's3cret')]",
    "password => 's3cret', password := s3cret",
    "user[password]=s3cret&user%5Bpin%5D=s3cret",
    "mysql --password s3cret",
    "<a><password type='x'>correct s3cret</password></a>",
    "<credentials><user>a</user><value>s3cret</value></credentials>",
    "Authorization: ApiKey x1s3cret",
    "Cookie: theme=dark; sid=s3cret",
    "Set-Cookie: sid=s3cret; Path=/",
    "postgres://app:p@s3cret@db/x and redis://:p/s3cret@db/0",
    "-----BEGIN RSA PRIVATE KEY-----\ns3cret\n-----END RSA PRIVATE KEY-----",
    "ghp_s3cret0123456789abcdef",
    f"got {json.dumps({'password': QUOTING})!r}",
    f"got {json.dumps({'password': QUOTING}).encode()!r}",
    f"got {json.dumps(json.dumps({'password': QUOTING}))!r}",
    f"got {html.escape(json.dumps({'password': QUOTING}))}",
    quote(json.dumps({"password": QUOTING})),
    "got [('authorization', 's3cr",
    "<a><password>correct s3cr",
    "a=1&password=%27abc%27%0As3cret&b=2",
    "password=%22abc%22s3cret",
]


@pytest.mark.parametrize("written", WRITTEN)
def test_a_named_value_is_hidden_however_the_text_is_written(written: str) -> None:
    payload = REDACTOR.document(json.dumps({"text": written, written: 1}).encode())
    assert payload is not None
    for shown in (json.dumps(payload.shown), REDACTOR.text(written, HiddenValues(()), 10_000)):
        assert "s3cr" not in shown, shown
        assert MASK in shown


def test_json_in_a_text_is_searched_like_the_rest() -> None:
    for written in ({"name": "password", "value": "s3cret"}, [["authorization", "s3cret"], {"a": {"pin": 17}}]):
        text = json.dumps(written)
        payload = REDACTOR.document(json.dumps({"a": text, "b": [json.dumps({"c": text})], text: 1}).encode())
        assert payload is not None
        assert "s3cret" not in str(payload.shown)
        assert payload.values & {"s3cret", "17"}
    deep = "[" * 120 + '{"pin": "s3cret"}' + "]" * 120
    assert REDACTOR.document(json.dumps({"a": deep}).encode()) is None


@pytest.mark.parametrize(
    "text",
    [
        *("password: too short", "Authorization: header is missing", "the cookie is stale: ignored"),
        *("missing columns ('password', 'email', 'x')", "at ('body', 'password')", "password=None, token=null"),
        *("KeyError: 'password'", "f() missing 1 required argument: 'pin'", "if token == expected: ok"),
        *("https://example.com:8080/v1?page=2#top", "https://example.com/@bob", "mail to bob@example.com failed"),
        *("redis://localhost:6379/0 refused", "<b>token</b> is bad", "max_tokens=400", "def f(token: str = 'x'):"),
        *('FATAL: password authentication failed for user "app"', "/app/password.py, line 12, in check_password"),
        json.dumps({"name": "colour", "value": "red", "list": [1, 2]}),
    ],
)
def test_texts_without_secrets_stay_readable(text: str) -> None:
    payload = REDACTOR.document(json.dumps({"text": text}).encode())
    assert payload is not None
    assert payload.shown == {"text": text}
    assert REDACTOR.text(text, HiddenValues(()), 10_000) == text


@pytest.mark.parametrize(
    ("data", "metadata"),
    [
        ({"password": "s3cretvalue"}, {"note": "it is s3cretvalue"}),
        ({"note": "it is s3cretvalue", "s3cretvalue": 1}, {"token": "s3cretvalue"}),
        ({"password": "s3cretvalue", "last": {"s3cretvalue": 1}, "all": [{"of s3cretvalue": 1}]}, {}),
        ({"pin": 73217321, "n": 73217321, "also": ["73217321"]}, {"n": 73217321}),
    ],
)
def test_what_is_hidden_in_one_place_is_hidden_in_the_others(
    client: TestClient, redis_url: str, raw: redis_sync.Redis, data: Any, metadata: Any
) -> None:
    fields = {"event_type": "fa.secretive", "data": json.dumps(data), "metadata": json.dumps(metadata)}
    put = put_letter(redis_url, **fields)
    raw.xadd(STREAM, {name: value for name, value in letter_fields(**fields).items() if name in EVENT})
    assert client.post(f"{LETTERS}/{put}/replay", json={"patch": {"password": "other", "n": 1}}).status_code == 200
    put_letter(redis_url, **fields)
    for path in (LETTERS, f"{LETTERS}/{put}", f"{LETTERS}/export", "/rapids/api/events?correlation_id=corr-1"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert MASK in answer.text
        assert "s3cretvalue" not in answer.text
        assert "73217321" not in answer.text
    for q in ("s3cret", "732173"):
        assert client.get(LETTERS, params={"q": q}).json()["items"] == []


@pytest.mark.parametrize(
    ("hidden", "text"),
    [
        ("0073217321", "no account 73217321 there"),
        (73217321.0, "pin 73217321 of 3"),
        (73217321, "pin 73217321.00 or 73,217,321 of 3"),
        (7321.5, "pin 7,321.50 of 3"),
        ("7321.50", "pin 7321.5 of 3"),
        (7321.25, "pin 7321 of 3"),
        (7.321e16, "pin 73210000000000000 of 3"),
        ("7.3210E+5", "pin 732100 of 3"),
        (7321e6, "pin Decimal('7.321E+9') of 3"),
        (-0.00000007321, "pin 0.00000007321 of 3"),
        (-7321e-10, "pin -7.321E-7 of 3"),
    ],
)
def test_a_hidden_number_is_found_in_other_formats(hidden: Any, text: str) -> None:
    payload = REDACTOR.document(json.dumps({"pin": hidden}).encode())
    shown = REDACTOR.text(text, REDACTOR.hidden(payload), 1_000)
    assert MASK in shown
    assert "321" not in shown


@pytest.mark.parametrize(
    ("hidden", "text"),
    [
        ("2019-07-03", "no datetime.date(2019, 7, 3)"),
        ("2019-07-03T04:05:06Z", "no datetime.datetime(2019, 7, 3, 4, 5, 6)"),
        ("ann:kryptonite", "no kryptonite"),
        ("Server=db;Pwd=krypt9;Timeout=5", "no 'krypt9'"),
        ("postgres://ann:krypt9@db/x", "no 'krypt9'"),
        ("sid=krypt9; theme=dark", "no krypt9"),
        ('{"user": "ann", "codes": ["krypt9"]}', "no 'krypt9'"),
        ("a3J5cHRvbml0ZQ==", "no b'kryptonite'"),
        ("a3J5cHRvbml0ZQo", "no b'kryptonite\\n'"),
        ("6b7279707479", "no b'krypty'"),
        ("Basic YW5uOmtyeXB0", "no 'krypt'"),
    ],
)
def test_a_part_of_a_hidden_value_that_is_one_of_its_own_is_found(hidden: str, text: str) -> None:
    """What a handler reads from it is what errors quote: a date, a password, a member of a document."""
    payload = REDACTOR.document(json.dumps({"token": hidden, "note": text}).encode())
    for shown in (REDACTOR.text(text, REDACTOR.hidden(payload), 1_000), json.dumps(payload and payload.shown)):
        assert MASK in shown
        for secret in ("krypt", "7, 3", "4, 5"):
            assert secret not in shown


@pytest.mark.parametrize(
    "data", [{"argv": ["run", "--password", "hunter2"]}, {"x": {"y": ["-v", "--api-key", "hunter2", 1]}}]
)
def test_the_value_of_an_option_of_a_command_is_hidden(data: Any) -> None:
    """In a list of any length, and in what `subprocess.CalledProcessError` says of it."""
    payload = REDACTOR.document(json.dumps(data).encode())
    assert payload is not None
    assert "hunter2" not in json.dumps(payload.shown)
    assert payload.values == {"hunter2"}
    said = str(CalledProcessError(1, ["run", "-v", "--password", "hunter2", "x"]))
    assert REDACTOR.text(said, HiddenValues(()), 1_000) == said.replace("hunter2", MASK)


class TestRepeatedNames:
    """Of values with one name, the last one counts, for workers and here. What the others quote is hidden, too."""

    @pytest.mark.parametrize(
        "raw",
        [
            b'{"token": "S1-first", "token": "S2-last"}',
            b'{"token": "S1-first", "token": null}',
            b'{"credentials": {"x": "S1-first", "x": "S2-last"}}',
            b'{"x": {"password": "S1-first"}, "x": 1}',
            b'{"x": [{"password": ["S1-first"]}], "x": "another", "x": 2}',
            b'{"quoted": "{\\"x\\": {\\"password\\": \\"S1-first\\"}, \\"x\\": 1}"}',
        ],
    )
    def test_a_value_that_another_one_replaces_is_hidden(self, raw: bytes) -> None:
        redactor = Redactor.of(())
        found = redactor.document(raw)
        assert found is not None
        assert "S1-first" not in json.dumps(found.shown)
        error = redactor.text("ValueError: S1-first is weak", redactor.hidden(found), 1_000)
        assert error == f"ValueError: {MASK} is weak"

    def test_what_is_shown_is_what_a_worker_reads(self) -> None:
        class Part(BaseModel):
            n: int

        class Whole(BaseModel):
            n: int
            part: Part
            parts: dict[str, Part]

        raw = b'{"n": 1, "part": {"n": 1}, "n": 2, "part": {"n": 2, "n": 3}, "parts": {"a": {"n": 4}, "a": {"n": 5}}}'
        found = Redactor.of(()).document(raw)
        assert found is not None
        assert found.shown == Whole.model_validate_json(raw).model_dump()


def test_a_location_in_an_event_quotes_no_hidden_value(client: TestClient, redis_url: str) -> None:
    stored = {
        "password": "passes-s3cret",
        "s3cret": 1,
        "passes": {"passes-s3cret": "x", "other": "x"},
        "x passes-s3cret": 1,
    }
    put = put_letter(redis_url, event_type="fa.strict", data=json.dumps(stored))
    problems = client.get(f"{LETTERS}/{put}").json()["parse_check"]["problems"]
    refused = client.post(f"{LETTERS}/{put}/replay", json={"patch": {"new": 1}}).json()["errors"]
    for found in (problems, refused):
        pointers = {one["pointer"] for one in found}
        assert pointers >= {f"/passes/{MASK}", "/passes/other", f"/{MASK}", "/s3cret"}
        assert "passes-s3cret" not in str(found)


@pytest.mark.parametrize("size", [14, 15, 16])
def test_no_letter_of_base64_that_has_bits_of_a_value_is_left(size: int) -> None:
    """Of values that differ in the last bits of one of their ends only, the same is shown."""
    value = "hunter2-and-more"[:size]
    for before in (b"", b"u", b"us", b"use"):
        for after in (b"", b"x", b"xy", b"xyz"):
            shown: set[str] = set()
            for one in {value, chr(ord(value[0]) ^ 0x43) + value[1:], value[:-1] + chr(ord(value[-1]) ^ 0x03)}:
                quoted = base64.b64encode(before + one.encode() + after).decode()
                shown.add(HiddenValues({one}).text(f"E: {quoted} !"))
            assert len(shown) == 1, (before, after)


@pytest.mark.parametrize("count", [10, 99, 100, 3_000])
def test_hidden_values_are_masked_where_others_quote_them_however_many_there_are(count: int) -> None:
    tokens = [f"{n:04d}-tok-abcdefgh" for n in range(count)]
    data = {
        "password": "hunter2",
        "tokens": tokens,
        "note": "used hunter2",
        "by": {"hunter2": "x"},
        "other": "readable",
    }
    searched = Redactor.of([]).document(json.dumps(data).encode())
    assert searched is not None
    assert "hunter2" not in json.dumps(searched.shown)
    assert searched.shown["other"] == "readable"
    beside = Redactor.of([]).document(b'{"trace": "by hunter2"}', searched.values)
    assert beside is not None
    assert "hunter2" not in json.dumps(beside.shown)


@pytest.mark.parametrize("text", ["secret='{}' ok", 'secret: "{}" ok', '{"secret": "{}"}'])
def test_a_long_quoted_value_of_several_lines_is_hidden(text: str) -> None:
    lines = "\n".join(f"Q{n:03d}zzKKmmPP" for n in range(400))
    searched = Redactor.of([]).document(json.dumps({"log": text.replace("{}", lines)}).encode())
    assert searched is not None
    assert "zzKK" not in searched.shown["log"]


def test_a_pointer_in_a_diff_quotes_no_hidden_value(client: TestClient, redis_url: str) -> None:
    stored = {"password": "hunter2-x", "header": {"hunter2-x": {"token": "abcdef"}}, "n": 1}
    put = put_letter(redis_url, event_type="fa.secretive", data=json.dumps(stored))
    answer = client.post(f"{LETTERS}/{put}/replay", json={"patch": {"n": 2}})
    assert answer.status_code == 200
    [change] = client.get(f"{LETTERS}/{put}").json()["history"]
    assert f"/header/{MASK}/token" in {one["pointer"] for one in change["diff"]}
    assert "hunter2-x" not in json.dumps([answer.json(), change])


@pytest.mark.parametrize("more", [{"pin": "1"}, {"tokens": [f"{n:04d}-tok-abcdefgh" for n in range(200)]}])
def test_a_location_quotes_no_hidden_value_beside_others_that_hide_whole_texts(
    client: TestClient, redis_url: str, more: Any
) -> None:
    stored = {"password": "s3cret-1", "passes": {"s3cret-1": "x"}, **more}
    put = put_letter(redis_url, event_type="fa.strict", data=json.dumps(stored))
    problems = client.get(f"{LETTERS}/{put}").json()["parse_check"]["problems"]
    assert f"/passes/{MASK}" in {one["pointer"] for one in problems}
    assert "s3cret-1" not in str(problems)
