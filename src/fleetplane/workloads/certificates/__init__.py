"""CertificateSigningRequests: approves what nodes may have, signs what is approved, forgets what is done."""
