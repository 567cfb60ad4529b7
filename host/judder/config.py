"""What the server may be told: `judder.toml`, then the environment (JUDDER_PORT ...), then options; later wins."""

import ipaddress
import re
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from judder.dataset import Project
from judder.edge_impulse import URL
from judder.notehub import URL as NOTEHUB_URL


class ConfigError(ValueError):
    """A setting is wrong; the message names each, what it is and what is allowed."""


class ProjectSettings(BaseModel):
    """An entry of `[[projects]]` in judder.toml: what one Edge Impulse project wants."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(min_length=1)
    devices: str = Field(default="*", min_length=1)
    api_key: SecretStr = SecretStr("")
    hmac_key: SecretStr = SecretStr("")
    url: str = Field(default="", pattern=r"^(https?://[^/]+.*)?$")
    rate_hz: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    tolerance_ppm: float = Field(default=500, gt=0, le=100_000)
    resample: bool = False
    accept_flagged: bool = False
    testing_fraction: float = Field(default=0.2, ge=0, le=1)

    @model_validator(mode="after")
    def _can_resample(self) -> Self:
        if self.resample and self.rate_hz is None:
            raise ValueError("resample needs rate_hz: the rate to resample to")
        return self


class Config(BaseSettings):
    """Settings of `judder serve`, validated."""

    model_config = SettingsConfigDict(
        populate_by_name=True,
        env_prefix="JUDDER_",
        toml_file="judder.toml",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    data: Path = Path("judder-data")
    article_interval_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    default_label: str = Field(default="", max_length=255)
    ingest_token: SecretStr = SecretStr("")
    ingest_token_next: SecretStr = SecretStr("")
    frame_master_key: SecretStr = SecretStr("")
    frame_master_key_next: SecretStr = SecretStr("")
    require_signature: bool = False
    body_limit_bytes: int = Field(default=256 * 1024, ge=1024, le=64 * 1024 * 1024)
    body_timeout_s: float = Field(default=30, gt=0, le=3600)
    connection_limit: int = Field(default=512, ge=1, le=65536)
    idle_timeout_s: float = Field(default=15, gt=0, le=3600)
    requests_per_s: float = Field(default=0, ge=0)
    free_disk_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    keep_delivered_days: float = Field(default=30, ge=0)
    memory_limit_bytes: int = Field(default=64 * 1024 * 1024, ge=1024 * 1024)
    quarantine_limit_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    edge_impulse_url: str = Field(default=URL, pattern=r"^https?://[^/]+")
    edge_impulse_api_key: SecretStr = Field(default=SecretStr(""), validation_alias="EDGE_IMPULSE_API_KEY")
    edge_impulse_hmac_key: SecretStr = Field(default=SecretStr(""), validation_alias="EDGE_IMPULSE_HMAC_KEY")
    edge_impulse_connections: int = Field(default=8, ge=1, le=64)
    projects: list[ProjectSettings] = Field(default_factory=list)
    notehub_url: str = Field(default=NOTEHUB_URL, pattern=r"^https?://[^/]+")
    notehub_token: SecretStr = SecretStr("")
    notehub_project: str = Field(default="", pattern=r"^[!-~]*$")

    @classmethod
    def load(cls, **options: object) -> Self:
        """From file, environment and `options`; an option that is None was not given. Raises ConfigError."""
        try:
            return cls(**{name: value for name, value in options.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as error:
            raise ConfigError("; ".join(_line(fault["loc"], fault["msg"]) for fault in error.errors())) from None
        except ValueError as error:  # judder.toml is no TOML
            raise ConfigError(f"judder.toml: {error}") from None

    @field_validator("data")
    @classmethod
    def _is_folder(cls, data: Path) -> Path:
        if data.exists() and not data.is_dir():
            raise ValueError(f"{data} is not a folder")
        return data

    @field_validator("notehub_token")
    @classmethod
    def _is_token(cls, token: SecretStr) -> SecretStr:
        if not re.fullmatch("[!-~]*", token.get_secret_value()):
            raise ValueError("holds spaces or other characters that no token has: copy it from Notehub again")
        return token

    @field_validator("frame_master_key", "frame_master_key_next")
    @classmethod
    def _is_key(cls, key: SecretStr) -> SecretStr:
        if key and not re.fullmatch("[0-9a-fA-F]{32}", key.get_secret_value()):
            raise ValueError("must be 32 hex digits; `judder key --new` makes one")
        return key

    @model_validator(mode="after")
    def _can_require(self) -> Self:
        if self.require_signature and not self.master_keys:
            raise ValueError("require_signature needs frame_master_key; `judder key --new` makes one")
        return self

    @model_validator(mode="after")
    def _is_guarded(self) -> Self:
        if not self.ingest_token.get_secret_value() and not self.is_loopback:
            raise ValueError(
                f"host {self.host} can be reached from elsewhere: set JUDDER_INGEST_TOKEN, and X-Ingest-Token to it in "
                "the Notehub route; only a loopback address goes without"
            )
        return self

    def delivery(self) -> list[Project]:
        """The projects that windows go to: those of `projects`, else one for all if there is an API key."""
        entries = self.projects
        if not entries and self.edge_impulse_api_key.get_secret_value():
            entries = [ProjectSettings(name="default")]
        return [
            Project(
                name=entry.name,
                url=entry.url or self.edge_impulse_url,
                api_key=(entry.api_key.get_secret_value() or self.edge_impulse_api_key.get_secret_value()),
                hmac_key=(entry.hmac_key.get_secret_value() or self.edge_impulse_hmac_key.get_secret_value()),
                devices=entry.devices,
                rate_hz=entry.rate_hz,
                tolerance_ppm=entry.tolerance_ppm,
                resample=entry.resample,
                accept_flagged=entry.accept_flagged,
                testing_fraction=entry.testing_fraction,
            )
            for entry in entries
        ]

    @property
    def master_keys(self) -> list[bytes]:
        """Those that boards' keys are made from, the one to come first."""
        keys = (self.frame_master_key_next, self.frame_master_key)
        return [bytes.fromhex(key.get_secret_value()) for key in keys if key]

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def article_interval_s(self) -> float | None:
        return None if self.article_interval_ms is None else self.article_interval_ms / 1000

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def _line(where: tuple[int | str, ...], message: str) -> str:
    name = ".".join(map(str, where))
    message = message.removeprefix("Value error, ")
    return f"{name} (or JUDDER_{name.upper()}): {message}" if name else message
