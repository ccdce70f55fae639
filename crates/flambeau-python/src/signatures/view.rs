//! Signatures of the room "view".

operators! { VIEW;
}
