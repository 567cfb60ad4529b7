"""What the server may be told: `judder.toml`, then the environment (JUDDER_PORT ...), then options; later wins."""

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource


class ConfigError(ValueError):
    """A setting is wrong; the message names each, what it is and what is allowed."""


class Config(BaseSettings):
    """Settings of `judder serve`, validated."""

    model_config = SettingsConfigDict(
        env_prefix="JUDDER_", toml_file="judder.toml", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    data: Path = Path("judder-data")
    article_interval_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    default_label: str = Field(default="", max_length=255)
    ingest_token: SecretStr = SecretStr("")
    body_limit_bytes: int = Field(default=256 * 1024, ge=1024, le=64 * 1024 * 1024)
    body_timeout_s: float = Field(default=30, gt=0, le=3600)
    memory_limit_bytes: int = Field(default=64 * 1024 * 1024, ge=1024 * 1024)
    quarantine_limit_bytes: int = Field(default=64 * 1024 * 1024, ge=0)

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

    @model_validator(mode="after")
    def _is_guarded(self) -> Self:
        if not self.ingest_token.get_secret_value() and not self.is_loopback:
            raise ValueError(
                f"host {self.host} can be reached from elsewhere: set JUDDER_INGEST_TOKEN, and X-Ingest-Token to it in "
                "the Notehub route; only a loopback address goes without"
            )
        return self

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
