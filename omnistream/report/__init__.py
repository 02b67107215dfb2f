"""The page of a run, and tables of results beside published numbers."""

from omnistream.report.page import ReportPage
from omnistream.report.rows import HasMetricRows, MetricRow
from omnistream.report.tables import Table

__all__ = ["HasMetricRows", "MetricRow", "ReportPage", "Table"]
