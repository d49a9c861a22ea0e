"""How many queries the chat page makes: the same for a few rows as for many."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from gantry.chat.models import Conversation, Message
from models_admin.models import ModelDefinition, Runtime, SwitchJob
from tests.functional.chat_world import serve, signed_in, talk

# Session, user, two for permissions, conversation, messages, list, job, models, instances, last job.
BASELINE = 11


def fill(runtime: Runtime, user: User, models: int, jobs: int, conversations: int) -> None:
    start = ModelDefinition.objects.count()
    ModelDefinition.objects.bulk_create(
        ModelDefinition(model_id=f"m-{n}", name=f"Model {n}", runtime=runtime, is_available=n % 3 > 0, size_bytes=n)
        for n in range(start, start + models)
    )
    SwitchJob.objects.bulk_create(
        SwitchJob(kind="switch", state="succeeded", pool=runtime.pool, target_name="M", requested_by_name="ann", via="page")
        for _ in range(jobs)
    )  # fmt: skip
    made = Conversation.objects.bulk_create(Conversation(user=user, title=f"Talk {n}") for n in range(conversations))
    Message.objects.bulk_create(Message(conversation=one, role="user", text="Hi") for one in made)


def queries(client: Client, address: str) -> int:
    assert client.get(address).status_code == 200
    with CaptureQueriesContext(connection) as captured:
        client.get(address)
    return len(captured)


@pytest.mark.parametrize("query", ["", "?q=Hi"])
def test_number_of_queries_does_not_grow(query: str, member: User, null_runtime: Runtime) -> None:
    client = signed_in(member)
    serve(null_runtime)
    address = talk(member, ("a", "b"), ("c", "d")).get_absolute_url() + query
    fill(null_runtime, member, models=3, jobs=5, conversations=3)
    few = queries(client, address)

    fill(null_runtime, member, models=197, jobs=4995, conversations=297)

    assert (queries(client, address), few) == (BASELINE, BASELINE)
    assert client.get(address).content.decode().count('class="conversation"') == 100
