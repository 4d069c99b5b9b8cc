"""Where secret values come from. The store itself arrives with the secrets issue."""
