import re
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from dicode_sdk import NoRetry, env, params

TIMEOUT_S = 20
SUBJECT_CHARS = 150
ADDRESS = re.compile(r"[^\s@,<>\"()\[\]:;\\]+@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


class DeliveryError(Exception):
    """The message did not get through; the text says why and holds no secret."""


class RefusedError(DeliveryError, NoRetry):
    """Nor will it when it is sent again: something has to be set right first."""


def kind_of(code):
    """Tell a refusal for good (5xx) from one for now."""
    return RefusedError if code >= 500 else DeliveryError


def required(name):
    """Give a parameter that must be set."""
    value = params.get(name)
    if not value:
        raise RefusedError(f"e-mail: the parameter {name} of this task is empty")
    return value


def addresses(name):
    """Give the addresses in a parameter: only such as cannot become another header."""
    found = [part.strip() for part in required(name).split(",")]
    if not all(ADDRESS.fullmatch(address) and address.isascii() for address in found):
        raise RefusedError(f"e-mail: the parameter {name} holds something that is no address")
    return found


def message(text, url, sender, to):
    """Write the message. Its subject is the text's first line: one line, whatever is in it."""
    mail = EmailMessage()
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    mail["Subject"] = line if len(line) <= SUBJECT_CHARS else line[: SUBJECT_CHARS - 1] + "…"
    mail["From"] = sender
    mail["To"] = ", ".join(to)
    mail["Date"] = formatdate()
    mail["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(f"{text}\n\n{url}\n" if url else f"{text}\n")
    return mail


def connect(host, port, security):
    """Open the connection, encrypted as asked for, to a server whose certificate is good."""
    context = ssl.create_default_context()
    if security == "tls":
        return smtplib.SMTP_SSL(host, port or 465, timeout=TIMEOUT_S, context=context)
    server = smtplib.SMTP(host, port or 587, timeout=TIMEOUT_S)
    try:
        if security == "starttls":
            server.starttls(context=context)
    except BaseException:
        server.close()
        raise
    return server


def main():
    host, security, user = required("host"), params.get("security"), params.get("user")
    (sender,) = addresses("sender")[:1]
    to = addresses("to")
    mail = message(required("text"), params.get("url"), sender, to)
    password = env.get("SMTP_PASSWORD")
    if user and not password:
        raise RefusedError("e-mail: there is a user, and SMTP_PASSWORD is not set")
    if user and security == "none":
        raise RefusedError("e-mail: a password is never sent unencrypted; use starttls or tls")
    try:
        with connect(host, int(params.get("port")), security) as server:
            if user:
                server.login(user, password)
            refused = server.send_message(mail, sender, to)
    except smtplib.SMTPAuthenticationError as error:
        raise kind_of(error.smtp_code)(
            f"e-mail: {host} refused the login ({error.smtp_code}); look at user and SMTP_PASSWORD"
        ) from None
    except smtplib.SMTPRecipientsRefused as error:
        code = next(iter(error.recipients.values()))[0]
        raise kind_of(code)(f"e-mail: {host} refused every recipient ({code})") from None
    except smtplib.SMTPResponseException as error:
        raise kind_of(error.smtp_code)(f"e-mail: {host} answered {error.smtp_code}") from None
    except ssl.SSLCertVerificationError as error:
        why = error.verify_message
        raise RefusedError(f"e-mail: the certificate of {host} is not good: {why}") from None
    except smtplib.SMTPNotSupportedError:
        raise RefusedError(f"e-mail: {host} does not do what is asked (security, login)") from None
    except (OSError, smtplib.SMTPException) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise DeliveryError(f"e-mail: {host} cannot be used: {why}") from None
    if refused:
        # Not again: those who got it would get it twice.
        raise RefusedError(f"e-mail: {host} refused {len(refused)} of {len(to)} recipients")
    return {"sent": len(to)}
