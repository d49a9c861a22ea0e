"""Addresses of the chat pages."""

from django.urls import path

from gantry.chat import views, views_keys, views_models, views_requests

app_name = "chat"
urlpatterns = [
    path("", views.page, name="new"),
    path("c/<int:pk>/", views.page, name="conversation"),
    path("c/<int:pk>/rename/", views.rename, name="rename"),
    path("c/<int:pk>/delete/", views.delete, name="delete"),
    path("conversations/", views.conversations, name="conversations"),
    path("send/", views.send, name="send_new"),
    path("c/<int:pk>/send/", views.send, name="send"),
    path("messages/<int:pk>/stop/", views.stop, name="stop"),
    path("messages/<int:pk>/again/", views.again, name="again"),
    path("models/<int:pk>/switch/", views_models.switch, name="switch"),
    path("models/<int:pk>/ask/", views_requests.ask, name="ask"),
    path("requests/<int:pk>/withdraw/", views_requests.withdraw, name="withdraw"),
    path("keys/", views_keys.page, name="keys"),
    path("keys/<int:pk>/revoke/", views_keys.revoke, name="revoke_key"),
    path("jobs/<int:pk>/cancel/", views_models.cancel, name="cancel"),
]
