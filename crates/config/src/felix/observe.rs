//! Settings of logs, health, metrics, reports and flow logs.

use std::time::Duration;

use crate::table::Names::{Felix, FelixAs};
use crate::table::group;
use crate::value::{LocalReporter, LogSeverity, Number};

group! {
    /// Logs.
    Logging, "Logs" {
        /// The least severe messages that go to standard error.
        severity_screen: LogSeverity = LogSeverity::Info, Felix("logSeverityScreen"), Used;
        /// The least severe messages that go to the log file.
        severity_file: LogSeverity = LogSeverity::Info, Felix("logSeverityFile"), Accepted;
        /// The least severe messages that go to syslog.
        severity_sys: LogSeverity = LogSeverity::Info, Felix("logSeveritySys"), Accepted;
        /// The log file; `none` for no file.
        file_path: String = "/var/log/calico/felix.log".to_owned(), Felix("logFilePath"), Accepted;
        /// What the kernel's log lines of `Log` rules start with.
        prefix: String = "calico-packet".to_owned(), Felix("logPrefix"), Used;
    }
}

group! {
    /// The health endpoint: `/liveness` and `/readiness`.
    Health, "Health" {
        /// Whether the endpoint is served.
        is_enabled: bool = false, Felix("healthEnabled"), Used;
        /// The address or name to listen on.
        host: String = "localhost".to_owned(), Felix("healthHost"), Used;
        /// The TCP port.
        port: Number<1, 65535> = Number::clamped(9099), Felix("healthPort"), Used;
    }
}

group! {
    /// The metrics endpoint: `/metrics` in the form of Prometheus.
    Metrics, "Metrics" {
        /// Whether the endpoint is served.
        is_enabled: bool = false, Felix("prometheusMetricsEnabled"), Used;
        /// The address or name to listen on; empty is every address.
        host: String = String::new(), Felix("prometheusMetricsHost"), Used;
        /// The TCP port.
        port: Number<1, 65535> = Number::clamped(9091), Felix("prometheusMetricsPort"), Used;
        /// Whether metrics of the Go runtime are wanted; this daemon has none.
        go_runtime: bool = true, Felix("prometheusGoMetricsEnabled"), Accepted;
        /// Whether metrics of the process are wanted.
        process: bool = true, Felix("prometheusProcessMetricsEnabled"), Accepted;
        /// Whether metrics of WireGuard are wanted.
        wireguard: bool = true, Felix("prometheusWireGuardMetricsEnabled"), Used;
    }
}

group! {
    /// Reports about the daemon itself.
    Reporting, "Reports" {
        /// How often the daemon reports its state to the datastore; 0 is never.
        interval: Duration = Duration::from_secs(30),
            FelixAs("reportingInterval", "ReportingIntervalSecs"), Accepted;
        /// How long a report is believed.
        ttl: Duration = Duration::from_secs(90), FelixAs("reportingTTL", "ReportingTTLSecs"), Accepted;
        /// Whether anonymous usage is reported to anybody. This daemon never does.
        usage_enabled: bool = true, Felix("usageReportingEnabled"), Accepted;
        /// The directory with the sockets of application layer policy; empty for none.
        policy_sync_path: String = String::new(), Felix("policySyncPathPrefix"), Accepted;
        /// The directory that the status of each endpoint is written below; empty for none.
        endpoint_status_path: String = "/var/run/calico".to_owned(),
            Felix("endpointStatusPathPrefix"), Used;
        /// What to do about AWS's check of source and destination addresses.
        aws_check: crate::value::SourceDestinationCheck =
            crate::value::SourceDestinationCheck::DoNothing, Felix("awsSrcDstCheck"), Accepted;
    }
}

group! {
    /// Flow logs.
    FlowLogs, "Flow logs" {
        /// The gRPC address that flows are sent to; empty for none.
        goldmane_server: String = String::new(), Felix("flowLogsGoldmaneServer"), Accepted;
        /// How often flows are sent.
        flush_interval: Duration = Duration::from_secs(300), Felix("flowLogsFlushInterval"), Accepted;
        /// Whether a local socket receives flows too.
        local_reporter: LocalReporter = LocalReporter::Disabled,
            Felix("flowLogsLocalReporter"), Accepted;
        /// When policies are evaluated for a flow: `Continuous` or `None`.
        policy_evaluation_mode: String = "Continuous".to_owned(),
            Felix("flowLogsPolicyEvaluationMode"), Accepted;
    }
}
