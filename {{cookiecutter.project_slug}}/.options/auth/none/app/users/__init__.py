"""No users: whoever can reach the service may call it. The answer `auth=users` brings them."""
