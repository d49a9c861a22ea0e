"""HTTP addresses."""

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.urls import include, path

from gantry.api.app import api

urlpatterns = [
    path("admin/", admin.site.urls),
    path(
        "sign-in/",
        auth_views.LoginView.as_view(template_name="sign_in.html", redirect_authenticated_user=True),
        name="sign_in",
    ),
    path("sign-out/", auth_views.LogoutView.as_view(), name="sign_out"),
    path("", include("gantry.chat.urls")),
    path("", api.urls),
]
