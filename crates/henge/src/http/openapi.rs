//! The interface as an OpenAPI 3.1 document. The paths follow from the table of routes.

use utoipa::openapi::OpenApi;

/// The document.
pub(crate) fn document() -> OpenApi {
    OpenApi::default()
}
