"""Tenants: the same server, the same bytes, and none learns of the other."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ocrfleet import keys
from ocrfleet.errors import ConfigurationError
from ocrfleet.profiles.profile import RAPIDOCR
from ocrfleet.records.base import moment
from ocrfleet.records.documents import Manifest, Marker
from ocrfleet.records.priority import Priority
from ocrfleet.records.submissions import SourceReference, Submission, SubmissionOptions
from ocrfleet.settings import ApiSettings
from ocrfleet.sources.sources import uri_of
from ocrfleet.storage.store import FolderStore
from producer.api import auth
from producer.api.auth import check_address
from producer.delivery.finisher import Undelivered
from producer.errors import ConflictError
from producer.intake.register import Registration
from producer.state.tokens import Scope, Tokens
from tests.support.servers import Valkey
from tests.unit.producer.api.test_api import TOKEN, Front, pdf, problem

_ALL = (Scope.SUBMIT, Scope.READ, Scope.DELETE)


class Client:
    """A client with a token of a tenant."""

    def __init__(self, front: Front, secret: str) -> None:
        self._front = front
        self.headers = {"Authorization": f"Bearer {secret}"}

    def send(self, data: bytes, **options: Any) -> Any:
        headers = self.headers | {"Content-Type": "application/pdf"}
        return self._front.client.post("/v1/documents", content=data, headers=headers, params=options)

    def get(self, path: str, **query: Any) -> Any:
        return self._front.client.get(path, headers=self.headers, params=query or None)

    def post(self, path: str, **options: Any) -> Any:
        return self._front.client.post(path, headers=self.headers, **options)

    def delete(self, path: str) -> Any:
        return self._front.client.delete(path, headers=self.headers)

    def listed(self, **query: Any) -> list[str]:
        return [item["id"] for item in self.get("/v1/documents", **query).json()["items"]]


class Tenants:
    """A server with the clients of two tenants, and one with a plain token."""

    def __init__(self, front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
        self.front, self.store = front, front.store
        monkeypatch.setattr(auth, "_READ_EVERY", 0.0)
        self.tokens = Tokens(self.store)
        self.a, self.b = self.client("a", tenant="acme"), self.client("b", tenant="brick")
        self.plain = Client(front, TOKEN)

    def client(
        self, name: str, *, tenant: str, scopes: tuple[Scope, ...] = _ALL, valid: timedelta | None = None
    ) -> Client:
        secret, _ = self.tokens.create(name, tenant=tenant, scopes=scopes, valid=valid)
        return Client(self.front, secret)


@pytest.fixture
def tenants(tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tenants]:
    front = Front(tmp_path, redis=valkey.url, tokens=SecretStr(TOKEN))
    yield Tenants(front, monkeypatch)
    front.close()


def test_no_client_learns_of_another_tenants_document(tenants: Tenants) -> None:
    # Given a document of one tenant
    a, b = tenants.a, tenants.b
    view = a.send(pdf(2), name="secret plan.pdf", collection="letters").json()
    assert "id" in view, view
    place = f"/v1/documents/{view['id']}"
    assert view["names"] == [view["names"][0] | {"name": "secret plan.pdf", "collection": "letters"}]
    # Then the others get the same answers as for a document that was never there
    for other in (b, tenants.plain):
        for path in ("", "/pages", "/pages/1", "/result", "/events"):
            there, nowhere = other.get(f"{place}{path}"), other.get(f"/v1/documents/{'0' * 32}{path}")
            assert problem(there, 404)["detail"].replace(view["id"], "") == problem(nowhere, 404)["detail"].replace(
                "0" * 32, ""
            )
        problem(other.post(f"{place}/retry"), 404)
        problem(other.post(f"{place}/cancel"), 404)
        problem(other.delete(place), 404)
        assert other.listed(collection="letters") == []
        assert other.listed(status="waiting") == []
        assert other.listed(day=view["created"][:8]) == []
    # And it is where its tenant expects it
    assert a.get(place).json() == view
    assert a.listed(collection="letters") == a.listed(status="waiting") == a.listed(day=view["created"][:8])
    assert a.listed(collection="letters") == [view["id"]]
    assert a.listed(status="completed") == []


def test_the_same_bytes_are_read_once_and_each_tenant_has_its_own(tenants: Tenants) -> None:
    a, b = tenants.a, tenants.b
    # Given the same bytes of two tenants
    data = pdf()
    first = a.send(data, name="ours.pdf", collection="letters", callback="https://a.example/hook").json()
    second = b.send(data, name="theirs.pdf", collection="letters").json()
    place = f"/v1/documents/{first['id']}"
    # Then they are one document, of which each sees its own name and time
    assert first["id"] == second["id"]
    assert [name["name"] for name in second["names"]] == ["theirs.pdf"]
    assert second["created"] > first["created"]
    assert second["created"] not in a.get(place).text
    assert [name["name"] for name in a.get(place).json()["names"]] == ["ours.pdf"]
    assert tenants.plain.listed(collection="letters") == []
    # When one deletes it
    assert a.delete(place).status_code == 204
    # Then it is gone for that one only
    problem(a.get(place), 404)
    assert a.listed(collection="letters") == a.listed(status="waiting") == []
    assert b.get(place).json() == second
    assert b.listed(collection="letters") == [first["id"]]
    # And the dispatcher still finds it, under the other's name alone
    (marker,) = [key for queue in Priority for key in tenants.store.list(keys.waiting_in(queue))]
    assert "brick~letters" in marker
    # When the last one deletes it, then it is deleted
    assert b.delete(place).status_code == 204
    assert not tenants.store.exists(keys.manifest(first["id"]))
    assert [key for queue in Priority for key in tenants.store.list(keys.waiting_in(queue))] == []
    assert list(tenants.store.list(keys.COLLECTIONS)) == []


def test_one_tenants_cancellation_leaves_the_others_document(tenants: Tenants) -> None:
    a, b = tenants.a, tenants.b
    data = pdf()
    place = f"/v1/documents/{a.send(data).json()['id']}"
    b.send(data)

    cancelled = a.post(f"{place}/cancel").json()

    assert (cancelled["state"], a.get(place).json()["state"]) == ("cancelled", "cancelled")
    problem(a.post(f"{place}/cancel"), 409)
    assert b.get(place).json()["state"] == "waiting"
    # And a retry takes part again
    assert a.post(f"{place}/retry").status_code == 202
    assert a.get(place).json()["state"] == "waiting"


def submit_under(tenants: Tenants, document: str, tenant: str, names: int) -> None:
    """Add a tenant's submissions of a document under further names."""
    for number in range(names):
        submission = Submission(
            name=f"{number}.pdf",
            document=document,
            uri="file:///none",
            submitted=moment(),
            terms=SubmissionOptions(
                profile_digest=RAPIDOCR.digest, queue=Priority.BULK, collection=f"{tenant}~many", formats=("text",)
            ),
        )
        tenants.store.put(keys.wanted(document, submission.digest, tenant), submission.to_bytes())


def test_no_number_of_names_hides_another_tenants_submission(tenants: Tenants) -> None:
    # Given a tenant that submits another one's bytes under more names than are shown
    a, b = tenants.a, tenants.b
    data = pdf()
    document = b.send(data, name="theirs.pdf").json()["id"]
    place = f"/v1/documents/{document}"
    a.send(data)
    submit_under(tenants, document, "acme", 101)
    # Then it neither cancels nor deletes the other one's document
    assert a.post(f"{place}/cancel").status_code == 200
    assert (a.get(place).json()["state"], b.get(place).json()["state"]) == ("cancelled", "waiting")
    assert a.delete(place).status_code == 204
    problem(a.get(place), 404)
    assert [name["name"] for name in b.get(place).json()["names"]] == ["theirs.pdf"]
    # And all of its own names are gone: the other one is the last
    assert b.delete(place).status_code == 204
    assert list(tenants.store.list(keys.wanted_by(document))) == []
    assert not tenants.store.exists(keys.manifest(document))


def test_no_number_of_names_shows_another_tenants_outputs(tenants: Tenants) -> None:
    # Given a document of the default tenant, whose results could not be delivered
    document = tenants.front.shelf.ended()
    left = Undelivered(document=document, generation=1, detail="their bucket is away")
    tenants.store.put(keys.undelivered(document), left.to_bytes())
    place = f"/v1/documents/{document}"
    submit_under(tenants, document, "acme", 101)
    # Then another tenant sees only what it asked for itself
    view = tenants.a.get(place).json()
    assert (view["outputs"].keys(), view.get("undelivered")) == (set(), None)
    # And one whose bytes nobody else submitted deletes them under however many names
    assert tenants.plain.delete(place).status_code == 204
    assert tenants.a.delete(place).status_code == 204
    assert not tenants.store.exists(keys.manifest(document))


def test_what_one_tenant_cancelled_is_read_for_the_next_one(tenants: Tenants) -> None:
    a, b = tenants.a, tenants.b
    data = pdf()
    place = f"/v1/documents/{a.send(data).json()['id']}"
    a.post(f"{place}/cancel")
    assert a.send(data).json()["state"] == "cancelled"

    view = b.send(data).json()

    assert (view["state"], view["generation"]) == ("waiting", 2)
    assert a.get(place).json()["state"] == "cancelled"
    # And once for it, too
    assert b.post(f"{place}/cancel").json()["state"] == "cancelled"
    assert b.send(data).json()["state"] == "cancelled"


def test_what_every_tenant_cancelled_is_not_read(tenants: Tenants) -> None:
    a, b = tenants.a, tenants.b
    service = tenants.front.app.state.context.documents
    data = pdf()
    document = a.send(data).json()["id"]
    place = f"/v1/documents/{document}"
    b.send(data)
    a.post(f"{place}/cancel")
    # One that submits it again takes part again
    assert a.send(data).json()["state"] == "waiting"
    a.post(f"{place}/cancel")
    # The operator's retry says that it is being read
    with pytest.raises(ConflictError, match="still waiting"):
        service.retry(document)
    # When the last one cancels or deletes it, then it ends
    b.post(f"{place}/cancel")
    assert service.view(document).state == "cancelled"
    assert b.post(f"{place}/retry").status_code == 202
    assert (a.get(place).json()["state"], b.get(place).json()["state"]) == ("cancelled", "waiting")
    assert b.delete(place).status_code == 204
    assert service.view(document).state == "cancelled"
    assert a.post(f"{place}/retry").status_code == 202
    assert a.get(place).json()["state"] == "waiting"


@pytest.mark.parametrize("moment_of_it", ["before the tombstone", "after the tombstone", "before the submission"])
def test_a_document_that_another_tenant_submits_while_it_is_deleted_stays(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch, moment_of_it: str
) -> None:
    # Given a registration that runs into a deletion
    a, b = tenants.a, tenants.b
    data = pdf()
    document = a.send(data).json()["id"]
    place = f"/v1/documents/{document}"
    put, create = FolderStore.put, FolderStore.create
    met: list[Any] = []

    def meeting_put(store: FolderStore, key: str, content: bytes) -> None:
        last = moment_of_it == "before the tombstone"
        if not last:
            put(store, key, content)
        if key == keys.deleted(document) and not met and moment_of_it != "before the submission":
            met.append(b.send(data))
        if last:
            put(store, key, content)

    def meeting_create(store: FolderStore, key: str, content: bytes) -> bool:
        if key.startswith(keys.wanted_by(document, "brick")) and not met and moment_of_it == "before the submission":
            met.append(a.delete(place))
        return create(store, key, content)

    monkeypatch.setattr(FolderStore, "put", meeting_put)
    monkeypatch.setattr(FolderStore, "create", meeting_create)
    if moment_of_it == "before the submission":
        b.send(data)
    else:
        assert a.delete(place).status_code == 204
    # Then it is gone for the one, and waits for the other
    assert len(met) == 1
    tenants.front.app.state.context.documents.remove_deleted()
    problem(a.get(place), 404)
    assert b.get(place).json()["state"] == "waiting"
    markers = [key for queue in Priority for key in tenants.store.list(keys.waiting_in(queue)) if "brick~" in key]
    newest = max(Marker.from_bytes(tenants.store.get(key)).generation for key in markers)
    assert newest == b.get(place).json()["generation"]


def test_a_document_that_another_tenant_submits_while_it_is_cancelled_goes_on(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = tenants.a, tenants.b
    data = pdf()
    document = a.send(data).json()["id"]
    place = f"/v1/documents/{document}"
    create = FolderStore.create
    met: list[Any] = []

    def meeting_create(store: FolderStore, key: str, content: bytes) -> bool:
        if key == keys.status(document, 1) and not met:
            met.append(b.send(data))
        return create(store, key, content)

    monkeypatch.setattr(FolderStore, "create", meeting_create)
    assert a.post(f"{place}/cancel").status_code == 200
    assert len(met) == 1
    assert (a.get(place).json()["state"], b.get(place).json()["state"]) == ("cancelled", "waiting")


def test_documents_of_before_belong_to_the_default_tenant(tenants: Tenants) -> None:
    # Given a store of a version without tenants
    document = tenants.front.shelf.ended(collection="c")
    # Then plain tokens see it, and tenants don't
    assert tenants.plain.listed(collection="c") == tenants.plain.listed(status="completed") == [document]
    assert tenants.plain.get(f"/v1/documents/{document}/pages/1").status_code == 200
    assert tenants.a.listed(collection="c") == tenants.a.listed(status="completed") == []
    # And beside a tenant's documents, too, without a cursor that names one
    other = tenants.a.send(pdf()).json()["id"]
    listing = tenants.plain.get("/v1/documents", status="completed", limit=1)
    assert ([item["id"] for item in listing.json()["items"]], other in listing.text) == ([document], False)


def test_pages_of_a_listing_follow_each_other(tenants: Tenants) -> None:
    ids = [tenants.a.send(pdf(count), collection=f"c{count}").json()["id"] for count in (1, 2, 3)]
    tenants.b.send(pdf(4))

    first = tenants.a.get("/v1/documents", status="waiting", limit=2).json()
    second = tenants.a.get("/v1/documents", status="waiting", limit=2, cursor=first["next"]).json()

    assert [item["id"] for item in [*first["items"], *second["items"]]] == ids
    assert second.get("next") is None


def test_a_submission_can_be_followed_by_its_tenant_only(tenants: Tenants) -> None:
    batches = tenants.front.app.state.context.submitter._batches
    options = SubmissionOptions(profile_digest=RAPIDOCR.digest, queue=Priority.BULK, collection="acme~c")
    name = batches.add_followed(options, SourceReference(name="a.pdf", uri="file:///none/a.pdf", size=1))

    assert tenants.a.get(f"/v1/submissions/{name}").json()["state"] == "arriving"
    problem(tenants.b.get(f"/v1/submissions/{name}"), 404)
    problem(tenants.plain.get(f"/v1/submissions/{name}"), 404)


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        ((Scope.SUBMIT,), {"send", "cancel", "retry"}),
        ((Scope.READ,), {"get", "list"}),
        ((Scope.REVIEW,), {"get", "list", "retry"}),
        ((Scope.DELETE,), {"delete"}),
        ((Scope.ADMIN,), {"send", "get", "list", "cancel", "retry", "delete"}),
    ],
)
def test_a_token_does_what_its_scopes_say(tenants: Tenants, scopes: tuple[Scope, ...], allowed: set[str]) -> None:
    place = f"/v1/documents/{tenants.a.send(pdf()).json()['id']}"
    client = tenants.client("limited", tenant="acme", scopes=scopes)
    answers = {
        "send": client.send(pdf()),
        "get": client.get(place),
        "list": client.get("/v1/documents", collection="api"),
        "retry": client.post(f"{place}/retry"),
        "cancel": client.post(f"{place}/cancel"),
        "delete": client.delete(place),
    }
    refused = {name for name, answer in answers.items() if answer.status_code == 403}
    assert refused == answers.keys() - allowed
    for name in refused:
        assert "scope" in problem(answers[name], 403)["detail"]
        assert 'error="insufficient_scope"' in answers[name].headers["www-authenticate"]


def test_tokens_change_without_a_restart(tenants: Tenants) -> None:
    # Given a token that is replaced
    path = "/v1/documents?collection=c"
    assert tenants.a.get(path).status_code == 200
    second = tenants.client("second", tenant="acme")
    assert second.get(path).status_code == 200
    assert tenants.tokens.revoke("a")
    problem(tenants.a.get(path), 401)
    assert second.get(path).status_code == 200
    assert not tenants.tokens.revoke("a")
    # And one that has expired
    problem(tenants.client("old", tenant="acme", valid=timedelta(seconds=-1)).get(path), 401)
    # Then no secret is in the store
    assert second.headers["Authorization"][7:].encode() not in b"".join(
        tenants.store.get(key) for key in tenants.store.list(keys.TOKENS)
    )


def test_without_its_last_token_the_api_stays_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    front = Front(tmp_path)
    monkeypatch.setattr(auth, "_READ_EVERY", 0.0)
    path = "/v1/documents?collection=c"
    assert front.client.get(path).status_code == 200
    tokens = Tokens(front.store)
    tokens.create("one", tenant="default", scopes=(Scope.READ,), valid=None)
    problem(front.client.get(path), 401)
    tokens.revoke("one")
    problem(front.client.get(path), 401)
    front.close()


def test_metrics_are_for_the_default_tenants_administrator_once_there_are_tenants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server with tokens of the setting only: its metrics are open
    front = Front(tmp_path, tokens=SecretStr(TOKEN))
    monkeypatch.setattr(auth, "_READ_EVERY", 0.0)
    assert front.client.get("/metrics").status_code == 200
    # When there is a token of a tenant, then they are not
    tokens = Tokens(front.store)
    codes = {}
    for tenant, scope in (("acme", Scope.ADMIN), ("default", Scope.READ), ("default", Scope.ADMIN)):
        secret, _ = tokens.create(f"{tenant}-{scope}", tenant=tenant, scopes=(scope,), valid=None)
        codes[tenant, scope] = Client(front, secret).get("/metrics").status_code
    assert codes == {("acme", Scope.ADMIN): 403, ("default", Scope.READ): 403, ("default", Scope.ADMIN): 200}
    assert Client(front, TOKEN).get("/metrics").status_code == 200
    problem(front.client.get("/metrics"), 401)
    # Nor when the last one was revoked
    for name in ("acme-admin", "default-read", "default-admin"):
        tokens.revoke(name)
    problem(front.client.get("/metrics"), 401)
    front.close()


def test_a_token_in_the_store_lets_an_open_address_be_served() -> None:
    check_address("0.0.0.0", ApiSettings(), stored=True)  # noqa: S104
    with pytest.raises(ConfigurationError, match="ocrfleet token create"):
        check_address("0.0.0.0", ApiSettings())  # noqa: S104


def test_events_are_reported_for_the_default_tenant_only(tenants: Tenants) -> None:
    event = {"Event": "s3:TestEvent"}
    assert tenants.plain.post("/v1/events/s3", json=event).status_code == 200
    problem(tenants.a.post("/v1/events/s3", json=event), 403)
    problem(tenants.client("reader", tenant="default", scopes=(Scope.READ,)).post("/v1/events/s3", json=event), 403)


def test_sources_may_be_named_below_a_tenants_own_prefix() -> None:
    settings = ApiSettings(sources="s3://scans/{tenant}/, s3://open/")
    allowed = auth.allowed_sources(settings, "acme")
    assert allowed.allows("scans", "acme/a.pdf")
    assert allowed.allows("open", "a.pdf")
    assert not allowed.allows("scans", "brick/a.pdf")
    assert auth.allowed_sources(settings).allows("scans", "default/a.pdf")


def test_each_token_is_compared_in_constant_time(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return compare_digest(one, other)

    compare_digest = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", counted)
    # Whichever matches, or none, all of them are compared, as hashes of one length
    for client in (tenants.plain, tenants.a, tenants.b, Client(tenants.front, "wrong")):
        compared.clear()
        client.get("/v1/documents", collection="c")
        assert len(compared) == len(set(compared)) == 3
        assert {len(each) for each in compared} == {32}


def test_no_output_names_another_tenants_file(tenants: Tenants, tmp_path: Path) -> None:
    # Given a file that a tenant and the default tenant submitted from their own places
    paths = [tmp_path / "merger with brick.pdf", tmp_path / "ours.pdf"]
    data = pdf()  # each time with another id
    for path in paths:
        path.write_bytes(data)
    intake, store = tenants.front.app.state.context.submitter._intake, tenants.store
    made = {}
    for path, collection in zip(paths, ("acme~c", "c"), strict=True):
        options = SubmissionOptions(profile_digest=RAPIDOCR.digest, queue=Priority.BULK, collection=collection)
        registration = Registration(store, intake, profile=RAPIDOCR, terms=options)
        reference = SourceReference(name=path.name, uri=uri_of(path), size=path.stat().st_size)
        made[collection] = registration.register_reference(reference, submitted=moment()).document
    assert made["acme~c"] == made["c"]
    # Then outputs, which both get, have no file name of the tenant's, also after the file has moved
    manifest = Manifest.from_bytes(store.get(keys.manifest(made["c"])))
    assert [source.shows_name for source in manifest.sources] == [False]
    paths[0].unlink()
    registration.register_reference(reference, submitted=moment())
    manifest = Manifest.from_bytes(store.get(keys.manifest(made["c"])))
    assert [(source.shows_name, source.uri) for source in manifest.sources] == [(False, uri_of(paths[1]))]
    # And a file that the default tenant named first is in no format with names that a tenant gets
    document = tenants.front.shelf.ended()
    theirs = Submission(
        name="x",
        document=document,
        uri="u",
        submitted=moment(),
        terms=options.model_copy(update={"collection": "acme~c"}),
    )
    store.put(keys.wanted(document, theirs.digest, "acme"), theirs.to_bytes())
    problem(tenants.a.get(f"/v1/documents/{document}/result", format="alto"), 409)
    assert tenants.a.get(f"/v1/documents/{document}/result", format="md").status_code == 200
