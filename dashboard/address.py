"""What the bar chose stays in the page's address."""

from __future__ import annotations

import streamlit as st


def kept(key: str, default: object) -> str:
    """The key of a widget that is bound to the address, whose choice is put back where the address lost it.

    A browser that goes to another page before it has drawn the bar's widgets sends an address without them. Streamlit
    keeps their values then and leaves the address as it came, so that a reload or a copied link forgets the filter. A
    value that is assigned goes into the address.

    Args:
        key: Of the widget, and its name in the address.
        default: Its value where nothing is chosen; the address never holds it.

    Returns:
        The key.
    """
    chosen = st.session_state.get(key, default)
    if chosen != default and key not in st.query_params:
        st.session_state[key] = chosen
    return key
