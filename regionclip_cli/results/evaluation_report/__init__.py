"""The report of a measurement: tables, curves, confusions and the photos that went worst, in one HTML file."""

from regionclip_cli.results.evaluation_report.content import (
    ClassRow,
    Confusion,
    Curve,
    Marked,
    ReportContent,
    WorstPhoto,
)
from regionclip_cli.results.evaluation_report.page import write_report

__all__ = ["ClassRow", "Confusion", "Curve", "Marked", "ReportContent", "WorstPhoto", "write_report"]
