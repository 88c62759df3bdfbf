"""An API with another design than the example, for the tests of the generic tests.

It has the endpoints of the RealWorld specification: envelopes around every body, slugs and names as
keys, ``Authorization: Token``, pages by offset. Additional routes have features that it lacks. The
data is stored in dicts.
"""

from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count
from types import MappingProxyType
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Cookie, FastAPI, Header, Path, Query, Request, Response, Security
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader
from pydantic import Field

from app.kit.errors import AppError, Conflict, NotFound, error_responses
from app.kit.routing import Router
from app.kit.schemas import RequestModel, ResponseModel, Text

PREFIX = "/realworld/api"
TOKEN = "Token 0"  # noqa: S105 - of the only user there is at first

Name = Annotated[Text, Field(min_length=1, max_length=50)]
Short = Annotated[Text, Field(max_length=200)]


class Unauthorized(AppError):
    status = HTTPStatus.UNAUTHORIZED
    headers = MappingProxyType({"WWW-Authenticate": "Token"})


@dataclass
class Store:
    """The data of the API."""

    users: dict[str, dict[str, Any]] = field(default_factory=lambda: {"ada": {"username": "ada"}})
    articles: dict[str, dict[str, Any]] = field(default_factory=dict)
    comments: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    numbers: Any = field(default_factory=lambda: count(1))


token = APIKeyHeader(name="Authorization", scheme_name="Token", auto_error=False)


async def authenticate(request: Request, value: Annotated[str | None, Security(token)]) -> None:
    if value not in store_of(request).tokens:
        raise Unauthorized("A token is required.")


class NewUser(RequestModel):
    username: Name
    email: Name
    password: Annotated[
        str, Field(min_length=1, max_length=50, json_schema_extra={"format": "password"})
    ]


class NewUserBody(RequestModel):
    user: NewUser


class Login(RequestModel):
    email: Name
    password: Name


class LoginBody(RequestModel):
    user: Login


class Profile(RequestModel):
    bio: Short | None = None
    image: Short | None = None


class ProfileBody(RequestModel):
    user: Profile


class NewArticle(RequestModel):
    title: Short
    description: Short
    body: Short
    tag_list: Annotated[list[Name], Field(max_length=5)] = Field(
        default_factory=list, alias="tagList"
    )


class NewArticleBody(RequestModel):
    article: NewArticle


class ArticleUpdate(RequestModel):
    title: Short
    description: Short | None = None


class ArticleUpdateBody(RequestModel):
    article: ArticleUpdate


class NewComment(RequestModel):
    body: Short


class NewCommentBody(RequestModel):
    comment: NewComment


class Article(ResponseModel):
    slug: str
    title: str


class ArticlePublic(ResponseModel):
    article: Article


def operation_id(route: APIRoute) -> str:
    """Return an operation id that is no name of a function."""
    return "_".join(["realworld", route.name, *sorted(route.methods or ())])


public = Router(prefix=PREFIX, generate_unique_id_function=operation_id)
closed = Router(
    generate_unique_id_function=operation_id,
    prefix=PREFIX,
    dependencies=[Security(authenticate)],
    responses=error_responses(401),
)


def store_of(request: Request) -> Store:
    store: Store = request.app.state.realworld
    return store


def article_of(request: Request, slug: str) -> dict[str, Any]:
    if slug not in (articles := store_of(request).articles):
        raise NotFound("There is no such article.")
    return articles[slug]


@public.post("/users", status_code=201, responses=error_responses(409))
async def register(body: NewUserBody, request: Request) -> dict[str, Any]:
    users = store_of(request).users
    if body.user.username in users:
        raise Conflict("The name is taken.")
    users[body.user.username] = {"username": body.user.username, "email": body.user.email}
    return {"user": {**users[body.user.username], "token": "1"}}


@public.post("/users/login", responses=error_responses(401))
async def login(body: LoginBody) -> dict[str, Any]:
    raise Unauthorized("No such user.")


@closed.get("/user")
async def current_user(request: Request) -> dict[str, Any]:
    return {"user": store_of(request).users["ada"]}


@closed.put("/user")
async def change_user(body: ProfileBody, request: Request) -> dict[str, Any]:
    store_of(request).users["ada"] |= body.user.model_dump(exclude_unset=True)
    return {"user": store_of(request).users["ada"]}


@public.get("/profiles/{username}", responses=error_responses(404))
async def profile(username: Name, request: Request) -> dict[str, Any]:
    if username not in store_of(request).users:
        raise NotFound("There is no such user.")
    return {"profile": store_of(request).users[username]}


@closed.post("/profiles/{username}/follow", responses=error_responses(404))
@closed.delete("/profiles/{username}/follow", responses=error_responses(404))
async def follow(username: Name, request: Request) -> dict[str, Any]:
    return await profile(username, request)


@closed.delete("/user", status_code=204)
async def sign_out(request: Request, value: Annotated[str, Security(token)]) -> None:
    """End the session, and delete the caller's data."""
    store = store_of(request)
    store.tokens.discard(value)
    store.articles.clear()


Offset = Annotated[int, Query(ge=0, le=2**31)]
Limit = Annotated[int, Query(ge=1, le=100)]


@public.get("/articles")
async def articles(
    request: Request,
    tag: Annotated[Name | None, Query()] = None,
    offset: Offset = 0,
    limit: Limit = 20,
) -> dict[str, Any]:
    found = list(store_of(request).articles.values())[offset : offset + limit]
    return {"articles": found, "articlesCount": len(found)}


@closed.get("/articles/feed")
async def feed(request: Request, offset: Offset = 0, limit: Limit = 20) -> dict[str, Any]:
    return await articles(request, offset=offset, limit=limit)


@closed.post("/articles", status_code=201, response_model=ArticlePublic)
async def write(body: NewArticleBody, request: Request) -> dict[str, Any]:
    store = store_of(request)
    slug = f"article-{next(store.numbers)}"
    author = {"username": "ada"}
    store.articles[slug] = {"slug": slug, **body.article.model_dump(), "author": author}
    return {"article": store.articles[slug]}


@public.get("/articles/{slug}", response_model=ArticlePublic, responses=error_responses(404))
async def article(slug: Name, request: Request) -> dict[str, Any]:
    return {"article": article_of(request, slug)}


@closed.put("/articles/{slug}", response_model=ArticlePublic, responses=error_responses(404))
async def rewrite(slug: Name, body: ArticleUpdateBody, request: Request) -> dict[str, Any]:
    """Change the title of an article, which gives it a new slug."""
    store = store_of(request)
    found = store.articles.pop(article_of(request, slug)["slug"])
    found |= {"title": body.article.title, "slug": f"renamed-{next(store.numbers)}"}
    store.articles[found["slug"]] = found
    return {"article": found}


@closed.delete("/articles/{slug}", status_code=204, responses=error_responses(404))
async def remove(slug: Name, request: Request) -> None:
    del store_of(request).articles[article_of(request, slug)["slug"]]


@closed.post("/articles/{slug}/comments", responses=error_responses(404))
async def comment(slug: Name, body: NewCommentBody, request: Request) -> dict[str, Any]:
    article_of(request, slug)
    store = store_of(request)
    number = next(store.numbers)
    store.comments[number] = {"id": number, "body": body.comment.body}
    return {"comment": {"author": {"id": "ada"}, **store.comments[number]}}


@public.get("/articles/{slug}/comments", responses=error_responses(404))
async def comments(slug: Name, request: Request) -> dict[str, Any]:
    article_of(request, slug)
    return {"comments": list(store_of(request).comments.values())}


Number = Annotated[int, Path(ge=0, lt=2**31)]


@closed.delete("/articles/{slug}/comments/{id}", status_code=204, responses=error_responses(404))
async def remove_comment(slug: Name, id: Number, request: Request) -> None:  # noqa: A002
    article_of(request, slug)
    if id not in store_of(request).comments:
        raise NotFound("There is no such comment.")
    del store_of(request).comments[id]


@closed.post("/articles/{slug}/favorite", responses=error_responses(404))
@closed.delete("/articles/{slug}/favorite", responses=error_responses(404))
async def favorite(slug: Name, request: Request) -> dict[str, Any]:
    return {"article": article_of(request, slug)}


@public.get("/tags")
async def tags() -> dict[str, Any]:
    return {"tags": []}


# Routes that are not in RealWorld.


StrictNumber = Annotated[int, Field(strict=True, ge=0, lt=2**31)]


class Circle(RequestModel):
    shape: Literal["circle"]
    radius: StrictNumber


class Polygon(RequestModel):
    shape: Literal["polygon"]
    corners: Annotated[list[list[StrictNumber]], Field(min_length=3, max_length=9)]
    label: Name


class Node(RequestModel):
    """A tree."""

    name: Name
    children: Annotated[list["Node"], Field(max_length=3)] = Field(default_factory=list)


class Drawing(RequestModel):
    shape: Annotated[Circle | Polygon, Field(discriminator="shape")]
    tree: Node
    colours: Annotated[dict[Name, Name], Field(max_length=5)]
    pair: tuple[Name, StrictNumber]
    code: Annotated[str, Field(pattern="^[A-Z]{3}-[0-9]{4}$")]


@public.post("/drawings", status_code=201)
async def draw(body: Drawing, request: Request, response: Response) -> None:
    """Create a drawing, whose key is only in the Location header."""
    number = next(store_of(request).numbers)
    store_of(request).files[f"drawing-{number}"] = body.code
    response.headers["Location"] = f"{PREFIX}/drawings/drawing-{number}?fresh=1"


@public.get("/drawings/{which}", responses=error_responses(404))
async def drawing(which: Name, request: Request) -> str:
    if which not in store_of(request).files:
        raise NotFound("There is no such drawing.")
    return store_of(request).files[which]


Day = Annotated[str, Path(pattern="^[0-9]{4}-[0-9]{2}$")]


@public.put("/notes/{day}", status_code=204)
async def note(day: Day, body: NewComment, request: Request) -> None:
    """Create a note under a key of the client's choice."""
    store_of(request).files[day] = body.body


@public.delete("/notes/{day}", status_code=202, responses=error_responses(404))
async def remove_note(day: Day, request: Request) -> None:
    if day not in store_of(request).files:
        raise NotFound("There is no such note.")


@public.get("/search", responses=error_responses(404))
async def search(
    ids: Annotated[list[UUID], Query(min_length=1, max_length=5)],
    x_client: Annotated[Name, Header()],
    session: Annotated[Name, Cookie()],
) -> None:
    """Accept lists, headers and cookies; return nothing."""
    raise NotFound("Nothing was found.")


def mount(app: FastAPI) -> None:
    """Mount the API."""
    app.state.realworld = Store()
    for router in (closed, public):  # /articles/feed before /articles/{slug}
        app.include_router(router, responses=error_responses(413, 422, 431))
