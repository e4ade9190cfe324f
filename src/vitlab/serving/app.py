"""The routes: a JSON API, its description, and the inspector page."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

import jinja2
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from vitlab.data.images import RGB
from vitlab.data.resize import prepare
from vitlab.errors import UserError
from vitlab.models.build import class_names
from vitlab.serving.batching import Batcher
from vitlab.serving.engine import Engine
from vitlab.serving.limits import Refused
from vitlab.serving.looking import Look, Looking, Maps, ModelFacts, best_of
from vitlab.serving.memory import give_back
from vitlab.serving.uploads import decode_upload, image_bytes

LARGE_IMAGE = 4 * 2**20  # bytes, decoded
Found = TypeVar("Found")

PAGES = {
    "/": "index.html",
    "/page.css": "page.css",
    "/page.js": "page.js",
    "/heat.js": "heat.js",
    "/icon.svg": "icon.svg",
}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
BINARY = {"type": "string", "format": "binary"}
FORM = {"type": "object", "required": ["image"], "properties": {"image": BINARY}}
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"image/*": {"schema": BINARY}, "multipart/form-data": {"schema": FORM}},
    }
}
MAPS_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "16-bit floats, little-endian, in C order; the header X-Shape has the lengths of the axes.",
        "content": {"application/octet-stream": {"schema": BINARY}},
    }
}


class Prediction(BaseModel):
    """A class and how probable it is."""

    index: int
    label: str
    probability: float


class Answer(BaseModel):
    """The most probable classes, most probable first."""

    predictions: list[Prediction]


class Health(BaseModel):
    """Whether the server answers, and how many images wait."""

    status: str
    waiting: int


class Trouble(BaseModel):
    """Why a request was not served."""

    error: str


REASONS = {
    400: "a form that is malformed",
    403: "another web page asks",
    408: "the body came too slowly",
    413: "too many bytes or pixels",
    415: "another type of body",
    421: "another host was asked for",
    422: "no image that can be decoded, or a wrong parameter",
    429: "too many requests at a time",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Trouble, "description": why} for status, why in REASONS.items()
}


@dataclass(frozen=True, eq=False)
class Desk:
    """What the routes work with."""

    name: str
    looking: Looking
    batcher: Batcher
    decoders: ThreadPoolExecutor
    lookers: ThreadPoolExecutor

    async def image(self, request: Request) -> RGB:
        """The image of a request, as the model takes it."""
        body, kind = await request.body(), request.headers.get("content-type", "")
        limits, preprocessing = self.looking.limits, self.looking.model.preprocessing

        def made() -> tuple[RGB, int]:
            image_HWC = decode_upload(image_bytes(body, kind), limits)
            return prepare(image_HWC, preprocessing), image_HWC.nbytes

        def prepared() -> RGB:
            taken = 8 * len(body)  # by one that turns out to be damaged; what is refused unseen takes nothing
            try:
                image_HWC, taken = made()
                return image_HWC
            finally:
                if taken > LARGE_IMAGE:
                    give_back()

        return await asyncio.get_running_loop().run_in_executor(self.decoders, prepared)

    async def look(self, what: Callable[[], Found]) -> Found:
        """Something that takes a while, in the one thread for it."""
        return await asyncio.get_running_loop().run_in_executor(self.lookers, what)


def make_app(looking: Looking, engine: Engine, *, name: str) -> FastAPI:
    """The application, without its gate (see `vitlab.serving.gate`, which bounds the bodies that come in here).

    Args:
        looking: looks inside the model that is served.
        engine: runs it.
        name: of the model, to be shown.
    """
    desk = Desk(
        name, looking, Batcher(engine, looking.limits), ThreadPoolExecutor(2, "decode"), ThreadPoolExecutor(1, "look")
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with desk.decoders, desk.lookers:
            async with desk.batcher.working():
                yield

    app = FastAPI(
        title="vitlab", summary=f"Predictions of {name}, and looks inside it.", version="1",
        docs_url=None, redoc_url=None, lifespan=lifespan, openapi_url=None, redirect_slashes=False,
    )  # fmt: skip
    _add_error_answers(app)
    _add_api(app, desk)
    _add_looks(app, desk)
    _add_pages(app)
    return app


def _add_error_answers(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        headers = {"Retry-After": "1"} if error.status == 429 else None
        return JSONResponse({"error": error.reason}, error.status, headers)

    @app.exception_handler(UserError)
    async def mistaken(_: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 422)

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, dict(error.headers or {}))


def _add_api(app: FastAPI, desk: Desk) -> None:
    names = class_names(desk.looking.model)

    @app.post("/api/predict", responses=ERRORS, openapi_extra=UPLOAD, response_model=Answer)
    async def predict(request: Request, top: int = Query(5, ge=1)) -> Any:
        """The most probable classes of an image; fewer than `top` where the model has fewer."""
        if not names:
            raise UserError("the model has no classes; serve one that was trained on classes")
        probabilities_K = await desk.batcher.predict(await desk.image(request))
        return {"predictions": best_of(probabilities_K, names, min(top, len(names)))}

    @app.get("/api/model", response_model=ModelFacts)
    async def model() -> Any:
        """What kind of model is served."""
        return await desk.look(lambda: desk.looking.facts(desk.name))

    @app.get("/api/health", response_model=Health)
    async def health() -> Any:
        """Whether the server answers."""
        return {"status": "ok", "waiting": desk.batcher.waiting}


def _add_looks(app: FastAPI, desk: Desk) -> None:
    looking = desk.looking

    @app.post("/api/look", responses=ERRORS, openapi_extra=UPLOAD, response_model=Look)
    async def look(request: Request) -> Any:
        """The image as the model sees it, and the attention rollout over it."""
        image_HWC = await desk.image(request)
        return await desk.look(lambda: looking.look(image_HWC))

    @app.post("/api/attention", responses={**ERRORS, **MAPS_ANSWER}, openapi_extra=UPLOAD, response_class=Response)
    async def attention(request: Request, layer: int = Query(0, ge=0)) -> Response:
        """What every token attends to in one layer: (heads, tokens, tokens)."""
        image_HWC = await desk.image(request)
        return _maps(await desk.look(lambda: looking.attention(image_HWC, layer)))

    @app.post("/api/similarity", responses={**ERRORS, **MAPS_ANSWER}, openapi_extra=UPLOAD, response_class=Response)
    async def similarity(request: Request, depth: int = Query(0, ge=0)) -> Response:
        """How alike the patches' tokens are after `depth` layers: (patches, patches)."""
        image_HWC = await desk.image(request)
        return _maps(await desk.look(lambda: looking.similarity(image_HWC, depth)))

    @app.get("/api/positions", responses=MAPS_ANSWER, response_class=Response)
    async def positions() -> Response:
        """How alike the position embeddings are: (patches, patches)."""
        found = await desk.look(looking.position_similarity)
        if found is None:
            raise UserError("this model has no position embeddings to compare")
        return _maps(found)


def _maps(maps: Maps) -> Response:
    return Response(maps.data(), media_type="application/octet-stream", headers={"X-Shape": maps.shape()})


def _add_pages(app: FastAPI) -> None:
    folder = resources.files(__package__) / "page"

    def add(path: str, file: str) -> None:
        data, kind = (folder / file).read_bytes(), TYPES[file.rsplit(".")[-1]]

        async def page() -> Response:
            return Response(data, media_type=kind)

        app.add_api_route(path, page, methods=["GET"], include_in_schema=False)

    for path, file in PAGES.items():
        add(path, file)
    description = app.openapi()
    template = (folder / "api.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(template).render(description=description, errors=REASONS)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return Response(text, media_type="text/html")

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(description)
