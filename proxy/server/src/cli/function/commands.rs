//! The commands below `weir function`.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::Value;

use crate::admin::FUNCTIONS_PATH;
use crate::cli::function::call::call;
use crate::cli::function::payload::{CreateFlags, UpdateFlags};
use crate::cli::function::table;
use crate::cli::output::{OK, complain, errors_found, misused, say};

/// Make, change, show and delete the functions of a running gateway.
#[derive(Debug, Subcommand)]
pub(crate) enum FunctionCommand {
    /// Make a function, or one more version of the one that --function-id names
    Create {
        /// The function of which this is a further version
        #[arg(long, value_name = "ID")]
        function_id: Option<String>,
        #[command(flatten)]
        flags: Box<CreateFlags>,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Change a function, in all its versions
    Update {
        #[command(flatten)]
        function: Function,
        #[command(flatten)]
        flags: Box<UpdateFlags>,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Show all functions
    List {
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Show one function
    Get {
        #[command(flatten)]
        function: Function,
        #[command(flatten)]
        gateway: Gateway,
    },
    /// Delete a function, or one version of it
    Delete {
        #[command(flatten)]
        function: Function,
        #[command(flatten)]
        gateway: Gateway,
    },
}

/// Which function.
#[derive(Debug, Args)]
pub(crate) struct Function {
    /// Its id
    #[arg(long, value_name = "ID")]
    function_id: String,
    /// One of its versions; else the newest is shown, and all are changed or deleted
    #[arg(long, value_name = "ID")]
    version_id: Option<String>,
}

/// Which gateway, and how it is heard.
#[derive(Debug, Args)]
pub(crate) struct Gateway {
    /// The admin listener of the gateway
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901")]
    admin: String,
    /// How the answer is shown
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Table,
}

/// Carries one of them out. 0: done; 1: the gateway refuses; 2: it cannot be asked.
pub(crate) fn run(command: FunctionCommand) -> ExitCode {
    match command {
        FunctionCommand::Create {
            function_id,
            flags,
            gateway,
        } => {
            let below = function_id.map(|id| format!("/{id}/versions"));
            let below = below.unwrap_or_default();
            with_payload(&gateway, Method::POST, &below, flags.payload())
        }
        FunctionCommand::Update {
            function,
            flags,
            gateway,
        } => with_payload(&gateway, Method::PUT, &function.below(), flags.payload()),
        FunctionCommand::List { gateway } => ask(&gateway, Method::GET, "", None),
        FunctionCommand::Get { function, gateway } => {
            ask(&gateway, Method::GET, &function.below(), None)
        }
        FunctionCommand::Delete { function, gateway } => {
            ask(&gateway, Method::DELETE, &function.below(), None)
        }
    }
}

impl Function {
    fn below(&self) -> String {
        match &self.version_id {
            Some(version) => format!("/{}/versions/{version}", self.function_id),
            None => format!("/{}", self.function_id),
        }
    }
}

fn with_payload(
    gateway: &Gateway,
    method: Method,
    below: &str,
    payload: Result<Value, String>,
) -> ExitCode {
    match payload {
        Ok(payload) => ask(gateway, method, below, Some(&payload)),
        Err(error) => {
            complain(error);
            misused()
        }
    }
}

fn ask(gateway: &Gateway, method: Method, below: &str, payload: Option<&Value>) -> ExitCode {
    let path = format!("{FUNCTIONS_PATH}{below}");
    let answer = match call(&gateway.admin, method, &path, payload) {
        Ok(answer) => answer,
        Err(error) => {
            complain(error);
            return misused();
        }
    };
    if answer.status.is_success() {
        show(gateway.output, &answer.body);
        return OK;
    }
    let said = |name: &str| answer.body.get(name).and_then(Value::as_str);
    match (gateway.output, said("code"), said("detail")) {
        (Output::Table, Some(code), Some(detail)) => {
            complain(format_args!(
                "{code} ({}): {detail}",
                answer.status.as_u16()
            ));
        }
        _ => complain(format_args!("{:#}", answer.body)),
    }
    errors_found()
}

fn show(output: Output, answer: &Value) {
    match output {
        Output::Json if answer.is_null() => {}
        Output::Json => say(format_args!("{answer:#}")),
        Output::Table => table::lines(answer).iter().for_each(say),
    }
}
