"""The `pkcs11` provider: an AES-256 key inside a token (HSM), used there by AES-GCM and never read out of it.

A key that could be read out is refused. Keys of one label are told apart by their CKA_ID; the highest wraps. All calls
stand behind one lock: libraries crash under two threads. A library that hangs cannot be interrupted from here; its own
configuration bounds how long it waits for a device.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from typing import Any, Final

from bus.authority.providers.base import (
    NONCE_LENGTH,
    TAG_LENGTH,
    Wrapped,
    away,
    does_not_open,
    missing,
    unwrapped,
)
from bus.crypto.keys import KEY_LENGTH, Secret
from bus.errors import BusError, SettingsError
from bus.extras import package
from bus.files import read_secret
from bus.settings import Settings

SCHEME: Final = "pkcs11"
_LOCK: Final = threading.Lock()


class Pkcs11Provider:
    """Wrapped: nonce | ciphertext | tag; the wrapping key's name is `pkcs11:<token>/<label>/<id in hex>`."""

    def __init__(self, settings: Settings) -> None:
        self._pkcs11 = package("pkcs11", "pkcs11")
        self._errors = package("pkcs11.exceptions", "pkcs11")
        for key in ("token", "key"):
            if not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", getattr(settings, f"pkcs11_{key}")):
                raise SettingsError(f"pkcs11_{key}: expected a label of 1 to 32 letters, digits, `_`, `.` or `-`")
        with _LOCK:
            try:
                self._library = self._pkcs11.lib(str(settings.pkcs11_module))
            except self._errors.PKCS11Error as error:
                raise SettingsError(
                    f"pkcs11_module: {settings.pkcs11_module} cannot be loaded: {type(error).__name__}"
                ) from None
        self._settings = settings
        self._session: Any = None

    def wrap(self, key: Secret, context: bytes) -> Wrapped:
        """One encryption in the token."""
        nonce = os.urandom(NONCE_LENGTH)
        with _LOCK:
            try:
                kek = self._newest()
                sealed = self._encrypt(kek, nonce, key.reveal(), context)
                return Wrapped(self._name(kek), nonce + sealed)
            except self._errors.PKCS11Error as error:
                raise self._lost(error) from None

    def unwrap(self, wrapped: Wrapped, context: bytes, name: str) -> Secret:
        """One decryption in the token."""
        nonce, sealed = wrapped.data[:NONCE_LENGTH], wrapped.data[NONCE_LENGTH:]
        if len(sealed) != KEY_LENGTH + TAG_LENGTH:
            raise does_not_open(name)
        with _LOCK:
            try:
                kek = next((each for each in self._keys() if self._name(each) == wrapped.kek), None)
                if kek is None:
                    raise missing(wrapped, "is it the token that pkcs11_token and pkcs11_key name?")
                try:
                    return unwrapped(self._decrypt(kek, nonce, sealed, context), name)
                except (self._errors.EncryptedDataInvalid, self._errors.GeneralError, self._errors.FunctionFailed):
                    # Tokens say this of a wrong tag and of a fault of their own: one that still does its work meant
                    # the tag.
                    fresh = os.urandom(NONCE_LENGTH)
                    self._decrypt(kek, fresh, self._encrypt(kek, fresh, bytes(KEY_LENGTH), b""), b"")
                    raise does_not_open(name) from None
            except self._errors.PKCS11Error as error:
                raise self._lost(error) from None

    def rotate(self) -> str:
        """A new key in the token, under the next id; the earlier ones stay. Returns its name."""
        attribute = self._pkcs11.Attribute
        with _LOCK:
            try:
                held = self._keys()
                number = 1 + max((int.from_bytes(each[attribute.ID], "big") for each in held), default=0)
                made = self._open().generate_key(
                    self._pkcs11.KeyType.AES,
                    8 * KEY_LENGTH,
                    label=self._settings.pkcs11_key,
                    id=number.to_bytes(4, "big"),
                    store=True,
                    template={attribute.SENSITIVE: True, attribute.EXTRACTABLE: False},
                )
                return self._name(made)
            except self._errors.PKCS11Error as error:
                raise self._lost(error) from None

    def superseded(self) -> list[str]:
        """Every key of this name in the token but the newest."""
        with _LOCK:
            try:
                return [self._name(each) for each in self._keys()[:-1]]
            except self._errors.PKCS11Error as error:
                raise self._lost(error) from None

    def destroy(self, kek: str) -> None:
        """Destroy the key's object in the token. Raises ValueError for the newest."""
        with _LOCK:
            try:
                *earlier, newest = self._keys()
                if self._name(newest) == kek:
                    raise ValueError(f"{kek} wraps what is new")
                for each in earlier:
                    if self._name(each) == kek:
                        each.destroy()
            except self._errors.PKCS11Error as error:
                raise self._lost(error) from None

    def _open(self) -> Any:
        if self._session is None:
            pin = read_secret(self._settings.pkcs11_pin_file).decode().strip()
            token = self._library.get_token(token_label=self._settings.pkcs11_token)
            try:
                self._session = token.open(user_pin=pin, rw=True)
            except self._errors.UserAlreadyLoggedIn:  # by another session of this process
                self._session = token.open(rw=True)
        return self._session

    def _keys(self) -> list[Any]:
        attribute = self._pkcs11.Attribute
        try:
            session = self._open()
        except OSError as error:
            raise away(SCHEME, error, "see pkcs11_pin_file") from None
        label = self._settings.pkcs11_key
        found = list(
            session.get_objects({attribute.CLASS: self._pkcs11.ObjectClass.SECRET_KEY, attribute.LABEL: label})
        )
        return sorted(found, key=lambda each: int.from_bytes(each[attribute.ID], "big"))

    def _newest(self) -> Any:
        keys = self._keys()
        if not keys:
            raise away(SCHEME, self._errors.NoSuchKey(), "make a key in the token: bus keys rotate")
        newest, attribute = keys[-1], self._pkcs11.Attribute
        if newest[attribute.EXTRACTABLE] or not newest[attribute.SENSITIVE]:
            raise SettingsError(
                f"pkcs11_key: {self._name(newest)} can be read out of the token",
                hint="make one that cannot: bus keys rotate",
            )
        return newest

    def _name(self, kek: Any) -> str:
        settings, number = self._settings, bytes(kek[self._pkcs11.Attribute.ID]).hex()
        return f"{SCHEME}:{settings.pkcs11_token}/{settings.pkcs11_key}/{number}"

    def _encrypt(self, kek: Any, nonce: bytes, data: bytes, context: bytes) -> bytes:
        parameters = self._pkcs11.GCMParams(nonce, context, 8 * TAG_LENGTH)
        return bytes(kek.encrypt(data, mechanism=self._pkcs11.Mechanism.AES_GCM, mechanism_param=parameters))

    def _decrypt(self, kek: Any, nonce: bytes, data: bytes, context: bytes) -> bytes:
        parameters = self._pkcs11.GCMParams(nonce, context, 8 * TAG_LENGTH)
        return bytes(kek.decrypt(data, mechanism=self._pkcs11.Mechanism.AES_GCM, mechanism_param=parameters))

    def _lost(self, error: Exception) -> BusError:
        """The next call opens a session anew: the token may have been away."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(self._errors.PKCS11Error):
                session.close()
        return away(SCHEME, error)
