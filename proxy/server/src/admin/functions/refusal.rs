//! What the functions API says when it does not do what it was asked: RFC 9457 problems.

use http::StatusCode;
use serde_json::{Value, json};

/// A refusal with its stable code; `docs/errors.md` lists the codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<String>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// The body is no JSON object.
    pub(crate) fn json(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", detail)
    }

    /// The body is not declared as JSON, as a page of another origin could send it.
    pub(crate) fn media_type() -> Self {
        let detail = "send the body with `content-type: application/json`";
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            detail,
        )
    }

    /// What is asked for makes no function.
    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_function", detail)
    }

    /// No such function.
    pub(crate) fn no_function(id: &str) -> Self {
        let detail = format!("Function id '{id}': not found");
        Self::new(StatusCode::NOT_FOUND, "function_not_found", detail)
    }

    /// No such version of a function.
    pub(crate) fn no_version(id: &str, version: &str) -> Self {
        let detail = format!("Function id '{id}', version '{version}': not found");
        Self::new(StatusCode::NOT_FOUND, "function_not_found", detail)
    }

    /// No such model of a function.
    pub(crate) fn no_model(id: &str, model: &str) -> Self {
        let detail = format!("Function id '{id}': no model '{model}'");
        Self::new(StatusCode::NOT_FOUND, "model_not_found", detail)
    }

    /// The wanted id is taken.
    pub(crate) fn exists(id: &str) -> Self {
        let detail = format!("Function id '{id}': exists; POST {id}/versions adds a version to it");
        Self::new(StatusCode::CONFLICT, "function_exists", detail)
    }

    /// Only fields of models and the priority of a function of the config may be changed.
    pub(crate) fn in_config(id: &str, file: &str) -> Self {
        let detail = format!(
            "Function id '{id}': is written in {file}; change it there, or move its tables to the functions file"
        );
        Self::new(StatusCode::CONFLICT, "function_in_config", detail)
    }

    /// The text of a file cannot be changed in one place without changing it in others.
    pub(crate) fn layout(file: &str) -> Self {
        let detail = format!("{file}: its layout would not survive; change it by hand");
        Self::new(StatusCode::CONFLICT, "function_in_config", detail)
    }

    /// There is no file to keep functions in.
    pub(crate) fn no_file() -> Self {
        let detail = "there is no config file to keep functions beside: start with `weir run --config FILE`, `weir init` writes one";
        Self::new(StatusCode::CONFLICT, "no_config_file", detail)
    }

    /// The files hold what was rolled back.
    pub(crate) fn rolled_back() -> Self {
        let detail = "the files say what was rolled back, and a change would bring it back: correct them or POST /reload first";
        Self::new(StatusCode::CONFLICT, "config_rolled_back", detail)
    }

    /// Somebody else has written the file.
    pub(crate) fn raced() -> Self {
        let detail = "the file was changed at the same moment: try again";
        Self::new(StatusCode::CONFLICT, "config_changed", detail)
    }

    /// The configuration with the change in it is refused.
    pub(crate) fn rejected(errors: Vec<String>) -> Self {
        let detail = format!("nothing was changed: {}", errors.join("\n"));
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        Self {
            errors,
            ..Self::new(status, "config_rejected", detail)
        }
    }

    /// The machine does not let the file be written.
    pub(crate) fn unwritable(detail: String) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "config_unwritable", detail)
    }

    /// The process is about to end.
    pub(crate) fn ending() -> Self {
        let detail = "the process is ending";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ending", detail)
    }

    /// The path takes other methods.
    pub(crate) fn method() -> Self {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new(status, "method_not_allowed", "see `allow`")
    }

    /// Nothing is served here.
    pub(crate) fn path() -> Self {
        let detail = "GET / lists what is served";
        Self::new(StatusCode::NOT_FOUND, "path_not_found", detail)
    }

    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Its document; `instance` is the path that was asked for.
    pub(crate) fn document(&self, instance: &str) -> Value {
        let mut document = json!({
            "type": format!("urn:weir:problem:{}", self.code.replace('_', "-")),
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
        });
        if !self.errors.is_empty()
            && let Some(members) = document.as_object_mut()
        {
            members.insert("errors".into(), json!(self.errors));
        }
        document
    }

    #[cfg(test)]
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }
}
