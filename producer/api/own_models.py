"""Routes by which a fine-tuned model becomes an org's own, or is that no more."""

from typing import Any

from millpond.producer.http.problems import invalid
from millpond.producer.http.table import Call, Model, Name, Reply, Route, Who
from millpond.providers.catalogue import Models
from millpond.store.directory import TooMany
from millpond.store.own_models import OwnModels
from millpond.store.store import Store

#: Fine-tuned models that an org may have.
MODELS_MOST = 1_000


class ModelAsked(Model):
    """A fine-tuned model: its id at the provider, and the model that it was made of."""

    id: Name
    base: Name


class OwnModel(Model):
    """A model that is the org's own."""

    id: str
    base: str


class ModelRoutes:
    """For admins: the fine-tuned models of their org."""

    def __init__(self, store: Store, models: Models | None) -> None:
        self._own_models = OwnModels(store.gateway)
        self._models = models

    def routes(self) -> list[Route]:
        admin: dict[str, Any] = {"who": Who.ADMIN, "tags": ("org",)}
        return [
            Route(
                "POST",
                "/v1/models",
                self.add_model,
                summary="A fine-tuned model is the org's own",
                body=ModelAsked,
                replies={201: OwnModel},
                problems=(409,),
                **admin,
            ),
            Route(
                "DELETE",
                "/v1/models/{id}",
                self.remove_model,
                summary="A fine-tuned model is the org's no more",
                replies={204: None},
                **admin,
            ),
        ]

    async def add_model(self, call: Call) -> Reply:
        who, asked = call.caller, call.body
        if self._models is not None and asked.id in self._models:
            raise invalid("/id", "it is the provider's own, for everybody")
        if self._models is not None and asked.base not in self._models:
            raise invalid("/base", f"there is no such model; there are {', '.join(self._models)}")
        own = await self._own_models.of(who.org)
        if asked.id not in own and len(own) >= MODELS_MOST:
            raise TooMany(f"org {who.org} has {MODELS_MOST:,} models, as many as may be")
        await self._own_models.add(who.org, asked.id, asked.base, by=who.user)
        return Reply(OwnModel(id=asked.id, base=asked.base), status=201)

    async def remove_model(self, call: Call) -> Reply:
        who = call.caller
        await self._own_models.remove(who.org, call.path["id"], by=who.user)
        return Reply(status=204)
