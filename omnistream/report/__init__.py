"""The page of a run."""

from omnistream.report.page import ReportPage
from omnistream.report.rows import HasMetricRows, MetricRow

__all__ = ["HasMetricRows", "MetricRow", "ReportPage"]
