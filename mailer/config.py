"""Every setting: its type, default and meaning, and the only place that reads the environment.

Each setting is read, first found wins, from the Flask configuration (``app.config["MAILER_…"]``), the
environment (``MAILER_…``), a ``.env`` file in the working directory, the default below. Flask-Mail's own
``MAIL_*`` keys are understood where no ``MAILER_SMTP_URL`` or ``MAILER_DEFAULT_SENDER`` is given.
"""

from __future__ import annotations

import difflib
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from mailer.address import Address
from mailer.errors import ConfigError, InvalidAddress
from mailer.lanes import LANES, Lane

PREFIX = "MAILER_"
NEW_KEY = 'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'

# What kombu carries wake-ups over that has been tried here, and Redis' relatives.
_BROKERS = ("memory", "redis", "rediss", "redis+socket", "valkey", "valkeys", "amqp", "amqps", "pyamqp")

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=10**9, allow_inf_nan=False)]

Kept = Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)]


def _http_base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an absolute URL such as https://app.example.com")
    if parts.username or parts.query or parts.fragment:
        raise ValueError("must hold nothing but scheme, host, port and path")
    return url.rstrip("/")


def _broker(url: str) -> str:
    if url.partition("://")[0] not in _BROKERS or "://" not in url:
        raise ValueError(f"must begin with one of {', '.join(f'{scheme}://' for scheme in _BROKERS)}")
    # kombu knows Valkey as Redis, whose protocol it speaks.
    return url.replace("valkey", "redis", 1) if url.startswith("valkey") else url


def _rate(text: str) -> str:
    found = re.fullmatch(r"([1-9][0-9]{0,8})/(second|minute|hour|day)", text)
    if found is None:
        raise ValueError("must be a number and a unit, such as 100/second")
    return text


def _sender(text: str) -> str:
    try:
        return str(Address.parse(text, "sender"))
    except InvalidAddress as exc:
        raise ValueError(f'{exc.problem}; write it as "Acme" <no-reply@acme.example>') from None


class Settings(BaseSettings):
    """The settings of one application, checked. Frozen: build another one to change a value."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    # Where things are
    data_dir: Path = Field(Path(".mailer"), description="Folder for what the embedded default keeps on disk.")
    database_url: str | None = Field(
        None,
        description="SQLAlchemy URL of the store: sqlite:///… or postgresql+psycopg://…. "
        "Unset: mailer.db in the data folder.",
    )
    broker_url: Annotated[str, AfterValidator(_broker)] = Field(
        "memory://",
        description="Celery broker: redis://…, amqp://…, or memory:// for everything in one process.",
    )
    queue_prefix: str = Field(
        "mailer",
        pattern=r"^[A-Za-z0-9_.-]{1,64}$",
        description="Begins every queue's name; give each application that shares a broker its own.",
    )
    smtp_url: SecretStr | None = Field(
        None,
        description="Where mail leaves: smtp://user:password@host:587?starttls=required, smtps://…. "
        "Unset: Flask-Mail's MAIL_* keys, or else the embedded inbox.",
    )
    transports: SecretStr | None = Field(
        None,
        description="Several of them instead, each with a name: ses=smtp://…?weight=3&rate=14 "
        "postmark=smtps://…, with spaces between.",
    )

    # Identity
    base_url: Annotated[str, AfterValidator(_http_base)] = Field(
        "http://127.0.0.1:8000",
        description="The address people reach the application at; links use it. "
        "Unset: this machine, on the web port.",
    )
    default_sender: Annotated[str, AfterValidator(_sender)] | None = Field(
        None, description='Sender where a call names none: "Acme <no-reply@acme.example>".'
    )
    message_id_domain: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9.-]{1,253}$",
        description="Right side of Message-ID. Unset: the sender's domain.",
    )
    dkim_keys: Annotated[list[str], NoDecode] = Field(
        [],
        description="Comma-separated keys that sign mails: domain:selector:/path/key.pem. "
        "Make one with: mailer dkim new",
    )
    site_name: str = Field("Mailer", max_length=100, description="The name shown in mails and pages.")
    default_locale: str | None = Field(
        None, description="Locale of mails where a call names none: de, pt-BR."
    )
    secret_keys: Annotated[list[SecretStr], NoDecode] = Field(
        [],
        description="Comma-separated keys, at least 32 characters each; the first seals, all open. "
        f"Make one with: {NEW_KEY}",
    )

    # Web, inbox
    web_host: str = Field("127.0.0.1", description="Address the web server listens on.")
    web_port: Port = Field(8000, description="Port of the web server.")
    trusted_hosts: Annotated[list[str], NoDecode] = Field(
        [], description="Comma-separated host names to answer to besides the base URL's."
    )
    inbox_port: Port = Field(8025, description="Port of the embedded inbox's page and JSON API.")
    inbox_smtp_port: Port = Field(1025, description="SMTP port of the embedded inbox.")

    # What is accepted
    lanes: Annotated[list[Lane], NoDecode] = Field(
        list(LANES),
        description="Lanes, most urgent first: name:weight:share. The share is in percent of a worker, "
        "for the lane and those after it together.",
    )
    on_uncertain: Literal["retry", "hold"] = Field(
        "retry", description="When the text went out and the answer was lost: send again, or ask a person."
    )
    keep_idempotency_keys: Annotated[float, Field(ge=86_400, le=10**9, allow_inf_nan=False)] = Field(
        86_400, description="Seconds for which an idempotency key is kept: a day, or longer."
    )
    keep_bodies: Kept = Field(
        604_800,
        description="Seconds after its end for which what a mail said is kept: a week. 0: erased at once.",
    )
    keep_messages: Kept = Field(
        7_776_000,
        validate_default=True,
        description="Seconds after its end for which the rest of a message is kept: 90 days.",
    )
    max_recipients: Annotated[int, Field(ge=1, le=1000)] = Field(
        50, description="Most recipients of one message, to, cc and bcc together."
    )
    max_message_bytes: Annotated[int, Field(ge=10_000)] = Field(
        10_000_000, description="Largest encoded message, attachments included, in bytes."
    )

    # The HTTP API
    api_rate: Annotated[str, AfterValidator(_rate)] = Field(
        "100/second", description="Requests and mails of one API key: a number a second, minute, hour or day."
    )
    api_max_body_bytes: Annotated[int, Field(ge=10_000)] = Field(
        40_000_000, description="Largest body of a request to the API, in bytes."
    )
    test_smtp_url: SecretStr | None = Field(
        None,
        description="Where mail of test keys goes: smtp://127.0.0.1:1025, file:///…. It has no user, so it "
        "is no provider. Unset: nowhere, the console shows it.",
    )
    simulator_domain: str | None = Field(
        None,
        pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)+$",
        description="Besides resend.dev, the domain of delivered@, bounced@ and the like where a key asks.",
    )
    fetch_local: bool = Field(
        False,
        description="Attachments may also come by http and from this machine, and webhooks go there: for "
        "trying out only.",
    )

    # The SMTP door
    submission_host: str = Field("127.0.0.1", description="Address that mailer smtp listens on.")
    submission_port: Port = Field(2525, description="Port of mailer smtp, with STARTTLS.")
    submission_tls_port: Port | None = Field(
        None, description="Port of mailer smtp where TLS begins at once, such as 4465. Unset: none."
    )
    submission_certificate: Path | None = Field(
        None,
        description="PEM file with the certificate of mailer smtp and those above it. Needed unless it "
        "listens on this machine only.",
    )
    submission_private_key: Path | None = Field(
        None, description="PEM file with the certificate's key. Unset: it is in the same file."
    )

    # Delivery: the retry limits are the task's own (Celery's words), set from here
    max_retries: Annotated[int, Field(ge=0, le=1000)] = Field(25, description="Tries after the first one.")
    retry_backoff: Seconds = Field(60, description="Seconds before the second try; doubles from there.")
    retry_backoff_max: Seconds = Field(14_400, description="Longest wait between two tries, in seconds.")
    give_up_after: Seconds = Field(
        432_000,
        description="Seconds after which a mail that no transport could take ends as failed: five days.",
    )
    retry_jitter: bool = Field(True, description="Shorten each wait by a random part of up to a half.")
    uncertain_delay: Seconds = Field(
        60, description="Seconds before a text that went out and was not answered is sent again."
    )
    lease_seconds: Seconds = Field(
        60, description="A worker that says nothing for so long has lost its message to another."
    )
    crash_limit: Annotated[int, Field(ge=1, le=100)] = Field(
        3, description="A message whose worker died so often ends as failed."
    )
    sweep_seconds: Seconds = Field(1, description="How often each worker looks for due and abandoned rows.")
    republish_seconds: Seconds = Field(30, description="A wake-up without effect for so long is repeated.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log line that is written by the mailer command."
    )

    @model_validator(mode="before")
    @classmethod
    def _base_url_follows_port(cls, given: dict[str, Any]) -> dict[str, Any]:
        return (
            given
            if given.get("base_url")
            else given | {"base_url": f"http://127.0.0.1:{given.get('web_port', 8000)}"}
        )

    @field_validator("lanes", mode="before")
    @classmethod
    def _parse_lanes(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        return [Lane.parse(part) if isinstance(part, str) else part for part in parts]

    @field_validator("secret_keys", "trusted_hosts", "dkim_keys", mode="before")
    @classmethod
    def _split_on_commas(cls, value: Any) -> Any:
        return (
            [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        )

    @field_validator("secret_keys")
    @classmethod
    def _long_enough(cls, keys: list[SecretStr]) -> list[SecretStr]:
        if any(len(key.get_secret_value()) < 32 for key in keys):
            raise ValueError(f"a key has fewer than 32 characters; make one with: {NEW_KEY}")
        return keys

    @field_validator("lanes")
    @classmethod
    def _at_least_default(cls, lanes: list[Lane]) -> list[Lane]:
        names = [lane.name for lane in lanes]
        if "default" not in names or len(set(names)) < len(names):
            raise ValueError("must be different words, one of them 'default'")
        return lanes

    @field_validator("keep_messages")
    @classmethod
    def _not_before_its_body(cls, seconds: float, info: ValidationInfo) -> float:
        if seconds < info.data.get("keep_bodies", 0):
            raise ValueError(f"is less than {PREFIX}KEEP_BODIES, and no body outlives its message; raise it")
        return seconds

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: PydanticBaseSettingsSource, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return named["init_settings"], named["env_settings"], named["dotenv_settings"]

    @classmethod
    def load(cls, flask_config: Mapping[str, Any] | None = None) -> Settings:
        """Read all sources. Raises ConfigError naming the setting and what to write instead."""
        given = _from_flask(flask_config or {})
        try:
            return cls(**given)
        except ValidationError as exc:
            raise _as_config_error(exc) from None

    @property
    def lane_names(self) -> list[str]:
        """The names of the lanes, the most urgent first."""
        return [lane.name for lane in self.lanes]

    @property
    def store_url(self) -> str:
        """The database URL, the embedded default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'mailer.db'}"

    def sealing_keys(self) -> list[bytes]:
        """The keys that seal content, newest first.

        Unset, on SQLite: a key is made once and kept in the data folder, readable by its owner only.
        Unset, on a database that several machines may share: ConfigError, since each would make its own.
        """
        if self.secret_keys:
            return [key.get_secret_value().encode() for key in self.secret_keys]
        if not self.store_url.startswith("sqlite"):
            raise ConfigError(f"{PREFIX}SECRET_KEYS", f"is not set; make a key with: {NEW_KEY}")
        return [_kept_key(self.data_dir / "secret-key")]


def _from_flask(config: Mapping[str, Any]) -> dict[str, Any]:
    known = Settings.model_fields
    given = {}
    for key in [k for k in config if isinstance(k, str) and k.startswith(PREFIX)]:
        name = key.removeprefix(PREFIX).lower()
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {PREFIX}{near[0].upper()}?" if near else "see .env.example for all names"
            raise ConfigError(key, f"is not a setting; {hint}")
        if config[key] is not None:
            given[name] = config[key]
    sender = config.get("MAIL_DEFAULT_SENDER")
    if sender and "default_sender" not in given and not os.environ.get(f"{PREFIX}DEFAULT_SENDER"):
        given["default_sender"] = _named(sender) if isinstance(sender, tuple) else str(sender)
    return given


def _named(sender: tuple[str, str]) -> str:
    try:
        return str(Address.parse(sender, "sender"))
    except InvalidAddress as exc:
        raise ConfigError("MAIL_DEFAULT_SENDER", exc.problem) from None


def _as_config_error(exc: ValidationError) -> ConfigError:
    # The value itself stays out of the text: it may hold a password.
    first = exc.errors(include_input=False, include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    problem = first["msg"].removeprefix("Value error, ")
    return ConfigError(f"{PREFIX}{name.upper()}", problem[:1].lower() + problem[1:])


def _kept_key(path: Path) -> bytes:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(
            f"{PREFIX}DATA_DIR", f"cannot be made: {exc.strerror}; name another folder"
        ) from None
    # Written whole under another name, then linked: of two first starts, one wins and both read its key.
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    if not path.exists():
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_bytes().strip()
