"""Fine-tuned models: each belongs to the org that it was made for, and to nobody else."""

from redis.exceptions import RedisError

from millpond.errors import Refused, StoreUnavailable, UnknownPart
from millpond.store import keys
from millpond.store.gateway import Gateway


class ModelTaken(Refused):
    """The model is another org's."""

    code = "model_taken"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"model {model!r} is registered to another org; a fine-tuned model belongs to one"
        )


class OwnModels:
    """The fine-tuned models of the orgs of one partition."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def add(self, org: str, model: str, base: str, *, by: str) -> int:
        """The model is the org's, made of `base`; the version of the org's record."""
        return await self._enlist(org, model, base, by)

    async def remove(self, org: str, model: str, *, by: str) -> int:
        """The model is the org's no more; the version of the org's record."""
        return await self._enlist(org, model, "", by)

    async def _enlist(self, org: str, model: str, base: str, by: str) -> int:
        match await self._gateway.run("enlist", by, org, model, base):
            case [b"enlisted", version]:
                return int(version)
            case [b"unknown", b"org"]:
                raise UnknownPart("org", org)
            case [b"unknown", b"model"]:
                raise UnknownPart(f"model of org {org}", model)
            case [b"taken"]:
                raise ModelTaken(model)
            case other:
                raise AssertionError(f"enlist.lua replied {other}")

    async def of(self, org: str) -> dict[str, str]:
        """An org's own models, each with the model that it was made of."""
        key = keys.own_models(self._gateway.partition, org)
        try:
            found = await self._gateway.redis.hgetall(key)  # type: ignore[misc]
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the server does not answer: {error}") from error
        return {model.decode(): base.decode() for model, base in found.items()}
