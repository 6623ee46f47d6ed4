"""The configuration: its schema here, reading and checking in `hsm_core.config.load`."""

from hsm_core.config.schema import (
    SOURCE_KINDS,
    ComputeConfig,
    HsmConfig,
    LoggingConfig,
    OomRetry,
    ResultCollectionConfig,
    RetryConfig,
    SourceConfig,
)

__all__ = [
    "SOURCE_KINDS",
    "ComputeConfig",
    "HsmConfig",
    "LoggingConfig",
    "OomRetry",
    "ResultCollectionConfig",
    "RetryConfig",
    "SourceConfig",
]
