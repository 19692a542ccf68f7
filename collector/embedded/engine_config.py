"""The engine's own settings, written as the XML files it reads at start."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from pathlib import Path

READABLE_SYSTEM_TABLES = (
    "aggregate_function_combinators",
    "build_options",
    "collations",
    "columns",
    "contributors",
    "data_skipping_indices",
    "data_type_families",
    "databases",
    "detached_parts",
    "dictionaries",
    "documentation",
    "formats",
    "functions",
    "keywords",
    "licenses",
    "numbers",
    "numbers_mt",
    "one",
    "parts",
    "parts_columns",
    "projections",
    "settings",
    "settings_changes",
    "table_engines",
    "table_functions",
    "tables",
    "time_zones",
    "zeros",
    "zeros_mt",
)

# A reader may not touch these at all: they change what a statement means, where it reads, or what a limit counts.
FIXED_SETTINGS = (
    "additional_table_filters",
    "additional_result_filter",
    "allow_ddl",
    "allow_introspection_functions",
    "allow_experimental_kusto_dialect",
    "allow_experimental_prql_dialect",
    "dialect",
    "format_schema",
    "format_template_resultset",
    "format_template_resultset_format",
    "format_template_row",
    "format_template_row_format",
    "format_schema_message_name",
    "format_schema_source",
    "implicit_select",
    "implicit_table_at_top_level",
    "log_queries",
    "max_execution_speed",
    "max_memory_usage_for_user",
    "max_untracked_memory",
    "memory_overcommit_ratio_denominator",
    "readonly",
    "send_logs_level",
    "timeout_overflow_mode",
    "timeout_overflow_mode_leaf",
)


@dataclass(frozen=True)
class Limits:
    """What the engine and each reader may use.

    Attributes:
        server_memory: Bytes the engine may allocate in all.
        mark_cache: Bytes of index marks kept.
        readers: Readers' queries that run at once.
        reader_memory: Bytes a reader's query may use.
        reader_seconds: Wall seconds a reader's query may take.
        reader_result: Bytes a reader's answer may have, as the engine counts its columns.
        reader_threads: Threads of a reader's query.
        body: Bytes of an inserted body after decompression.
        sessions: Sessions that hold a handle of their own.
    """

    server_memory: int = 1_200_000_000
    mark_cache: int = 100_000_000
    readers: int = max(3, min(4, os.cpu_count() or 2))
    reader_memory: int = 300_000_000
    reader_seconds: int = 30
    reader_result: int = 256_000_000
    reader_threads: int = 2
    body: int = 1_000_000_000
    sessions: int = 64


def write_config(folder: Path, limits: Limits) -> Path:
    """Write the engine's configuration files into ``folder`` and return the one to start with.

    Raises:
        OSError: The folder can't be written.
    """
    users = folder / "users.xml"
    config = folder / "engine.xml"
    users.write_text(_users(limits))
    config.write_text(_server(users, limits))
    return config


def reader_settings(limits: Limits) -> dict[str, str]:
    """Settings a reader's handle starts with; the profile's constraints keep SQL from lifting them."""
    return {
        "max_memory_usage": str(limits.reader_memory),
        "max_bytes_before_external_group_by": str(limits.reader_memory // 2),
        "max_bytes_before_external_sort": str(limits.reader_memory // 2),
        "max_execution_time": str(limits.reader_seconds),
        "max_threads": str(limits.reader_threads),
        "max_result_bytes": str(limits.reader_result),
        "readonly": "2",
    }


def _server(users: Path, limits: Limits) -> str:
    return f"""<clickhouse>
  <users_config>{escape(str(users))}</users_config>
  <max_server_memory_usage>{limits.server_memory}</max_server_memory_usage>
  <mark_cache_size>{limits.mark_cache}</mark_cache_size>
  <index_mark_cache_size>20000000</index_mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <primary_index_cache_size>50000000</primary_index_cache_size>
  <mmap_cache_size>100</mmap_cache_size>
  <compiled_expression_cache_size>16000000</compiled_expression_cache_size>
  <background_pool_size>2</background_pool_size>
  <background_merges_mutations_concurrency_ratio>1</background_merges_mutations_concurrency_ratio>
  <background_move_pool_size>1</background_move_pool_size>
  <background_fetches_pool_size>1</background_fetches_pool_size>
  <background_common_pool_size>2</background_common_pool_size>
  <background_buffer_flush_schedule_pool_size>1</background_buffer_flush_schedule_pool_size>
  <background_schedule_pool_size>2</background_schedule_pool_size>
  <background_message_broker_schedule_pool_size>1</background_message_broker_schedule_pool_size>
  <background_distributed_schedule_pool_size>1</background_distributed_schedule_pool_size>
  <tables_loader_foreground_pool_size>2</tables_loader_foreground_pool_size>
  <tables_loader_background_pool_size>1</tables_loader_background_pool_size>
  <max_thread_pool_size>200</max_thread_pool_size>
  <max_thread_pool_free_size>2</max_thread_pool_free_size>
  <asynchronous_metrics_update_period_s>120</asynchronous_metrics_update_period_s>
  <asynchronous_heavy_metrics_update_period_s>3600</asynchronous_heavy_metrics_update_period_s>
  <merge_tree>
    <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
    <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
    <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
  </merge_tree>
  <access_control_improvements>
    <select_from_system_db_requires_grant>true</select_from_system_db_requires_grant>
    <select_from_information_schema_requires_grant>true</select_from_information_schema_requires_grant>
  </access_control_improvements>
</clickhouse>
"""


def _users(limits: Limits) -> str:
    grants = "\n".join(
        f"        <query>GRANT {grant}</query>"
        for grant in (
            "SELECT ON servescope.*",
            "SHOW ON servescope.*",
            "CREATE TEMPORARY TABLE ON *.*",
            "SELECT ON information_schema.*",
            "SELECT ON INFORMATION_SCHEMA.*",
            *(f"SELECT ON system.{table}" for table in READABLE_SYSTEM_TABLES),
        )
    )
    fixed = "\n".join(f"        <{name}><readonly/></{name}>" for name in FIXED_SETTINGS)
    return f"""<clickhouse>
  <profiles>
    <default/>
    <reader>
      <constraints>
        <max_memory_usage><min>1000000</min><max>{limits.reader_memory}</max></max_memory_usage>
        <max_execution_time><min>0.001</min><max>{limits.reader_seconds}</max></max_execution_time>
        <max_threads><min>1</min><max>{limits.reader_threads}</max></max_threads>
        <max_result_bytes><min>1</min><max>{limits.reader_result}</max></max_result_bytes>
{fixed}
      </constraints>
    </reader>
  </profiles>
  <roles>
    <owner><grants><query>GRANT ALL ON *.*</query></grants></owner>
    <reader>
      <grants>
{grants}
      </grants>
    </reader>
  </roles>
  <users>
    <default>
      <password></password>
      <networks><ip>::/0</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants><query>GRANT owner, reader</query></grants>
    </default>
  </users>
  <quotas><default/></quotas>
</clickhouse>
"""
