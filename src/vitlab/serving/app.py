"""The routes: a JSON API, its documentation, and the inspector page."""

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
from vitlab.serving.engine import Batcher, Engine
from vitlab.serving.inspector import ImageView, Inspector, Maps, ModelFacts, top_predictions
from vitlab.serving.limits import Refused
from vitlab.serving.memory import trim_memory
from vitlab.serving.uploads import decode_upload, image_bytes

LARGE_IMAGE = 4 * 2**20  # bytes, decoded
Result = TypeVar("Result")

PAGES = {"/": "index.html"} | {f"/{file}": file for file in ("page.css", "page.js", "heat.js", "icon.svg")}
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
        "description": "16-bit floats, little-endian, in C order; the header X-Shape gives the shape.",
        "content": {"application/octet-stream": {"schema": BINARY}},
    }
}


class Prediction(BaseModel):
    """A class and its probability."""

    index: int
    label: str
    probability: float


class Answer(BaseModel):
    """The most probable classes, most probable first."""

    predictions: list[Prediction]


class Health(BaseModel):
    """Whether the server answers, and how many images are waiting."""

    status: str
    waiting: int


class ErrorAnswer(BaseModel):
    """Why a request was not served."""

    error: str


REASONS = {
    400: "the form is malformed",
    403: "the request comes from another website",
    408: "the body arrived too slowly",
    413: "too many bytes or pixels",
    415: "unsupported content type",
    421: "the Host header names another server",
    422: "the image cannot be decoded, or a parameter is invalid",
    429: "too many requests at once",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": why} for status, why in REASONS.items()
}


@dataclass(frozen=True, eq=False)
class RouteContext:
    """What the routes work with."""

    name: str
    inspector: Inspector
    batcher: Batcher
    decoders: ThreadPoolExecutor
    inspections: ThreadPoolExecutor

    async def image(self, request: Request) -> RGB:
        """The image of a request, resized and cropped for the model."""
        body, kind = await request.body(), request.headers.get("content-type", "")
        limits, preprocessing = self.inspector.limits, self.inspector.model.preprocessing

        def prepared() -> RGB:
            decoded_bytes = 8 * len(body)  # an estimate, for an image that turns out to be damaged
            try:
                image_HWC = decode_upload(image_bytes(body, kind), limits)
                decoded_bytes = image_HWC.nbytes
                prepared_HWC = prepare(image_HWC, preprocessing)
                del image_HWC
                return prepared_HWC
            finally:
                if decoded_bytes > LARGE_IMAGE:
                    trim_memory()

        return await asyncio.get_running_loop().run_in_executor(self.decoders, prepared)

    async def inspect(self, compute: Callable[[], Result]) -> Result:
        """The result of `compute`, which runs in the one thread for inspections."""
        return await asyncio.get_running_loop().run_in_executor(self.inspections, compute)


def make_app(inspector: Inspector, engine: Engine, *, name: str) -> FastAPI:
    """The application without its middleware, which limits the size of bodies (see `vitlab.serving.middleware`).

    Args:
        inspector: of the model that is served.
        engine: runs the model.
        name: of the model, to be shown.
    """
    decoders, inspections = ThreadPoolExecutor(2, "decode"), ThreadPoolExecutor(1, "inspect")
    context = RouteContext(name, inspector, Batcher(engine, inspector.limits), decoders, inspections)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with context.decoders, context.inspections:
            async with context.batcher.running():
                yield

    app = FastAPI(
        title="vitlab", summary=f"Predictions of {name}, its attention maps and similarities.", version="1",
        docs_url=None, redoc_url=None, lifespan=lifespan, openapi_url=None, redirect_slashes=False,
    )  # fmt: skip
    _add_error_answers(app)
    _add_api(app, context)
    _add_inspection(app, context)
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


def _add_api(app: FastAPI, context: RouteContext) -> None:
    names = class_names(context.inspector.model)

    @app.post("/api/predict", responses=ERRORS, openapi_extra=UPLOAD, response_model=Answer)
    async def predict(request: Request, top: int = Query(5, ge=1)) -> Any:
        """The `top` most probable classes of an image, or all classes if the model has fewer."""
        if not names:
            raise UserError("the model has no classification head; serve a model that has one")
        probabilities_K = await context.batcher.predict(await context.image(request))
        return {"predictions": top_predictions(probabilities_K, names, min(top, len(names)))}

    @app.get("/api/model", response_model=ModelFacts)
    async def model() -> Any:
        """The model that is served: its input size, patches, layers and heads."""
        return await context.inspect(lambda: context.inspector.facts(context.name))

    @app.get("/api/health", response_model=Health)
    async def health() -> Any:
        """Whether the server answers."""
        return {"status": "ok", "waiting": context.batcher.waiting}


def _add_inspection(app: FastAPI, context: RouteContext) -> None:
    inspector = context.inspector

    @app.post("/api/look", responses=ERRORS, openapi_extra=UPLOAD, response_model=ImageView)
    async def look(request: Request) -> Any:
        """The image as the model receives it, and its attention rollout."""
        image_HWC = await context.image(request)
        return await context.inspect(lambda: inspector.view(image_HWC))

    @app.post("/api/attention", responses={**ERRORS, **MAPS_ANSWER}, openapi_extra=UPLOAD, response_class=Response)
    async def attention(request: Request, layer: int = Query(0, ge=0)) -> Response:
        """The attention maps of one layer, shape (heads, tokens, tokens); each row is one token's attention."""
        image_HWC = await context.image(request)
        return _maps(await context.inspect(lambda: inspector.attention(image_HWC, layer)))

    @app.post("/api/similarity", responses={**ERRORS, **MAPS_ANSWER}, openapi_extra=UPLOAD, response_class=Response)
    async def similarity(request: Request, depth: int = Query(0, ge=0)) -> Response:
        """Cosine similarity of the patch tokens after `depth` layers, shape (patches, patches)."""
        image_HWC = await context.image(request)
        return _maps(await context.inspect(lambda: inspector.similarity(image_HWC, depth)))

    @app.get("/api/positions", responses=MAPS_ANSWER, response_class=Response)
    async def positions() -> Response:
        """Cosine similarity of the position embeddings, shape (patches, patches)."""
        similarity = await context.inspect(inspector.position_similarity)
        if similarity is None:
            raise UserError("this model has no position embeddings to compare")
        return _maps(similarity)


def _maps(maps: Maps) -> Response:
    data, shape = maps.astype("<f2").tobytes(), ",".join(map(str, maps.shape))
    return Response(data, media_type="application/octet-stream", headers={"X-Shape": shape})


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
